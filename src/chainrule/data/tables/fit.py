"""Fit the preprocessing: median, mean, scale and words of the training rows alone.

R rows
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from chainrule.data.tables.column import Categories, Floats, Numbers, Table
from chainrule.data.tables.preprocess import CategoryFeature, Feature, NumberFeature, Preprocessing
from chainrule.data.tables.sides import Rows
from chainrule.data.tables.target import Target
from chainrule.errors import DataError

ROUNDING = 1e-12  # a spread below this share of the largest value is the rounding of a constant


def fit(
    table: Table, target: Target, target_R: Floats, training: Rows, *, max_categories: int, min_rows: int
) -> tuple[Preprocessing, list[tuple[str, str]]]:
    """Fit on the training rows; also the columns that say nothing there, as (name, reason).

    max_categories  words of one column that get an input of their own, the most frequent ones
    min_rows        training rows that a word needs for that

    Raises DataError if no column is left.
    """
    features: list[Feature] = []
    dropped = []
    for column in table.columns:
        feature = (
            fit_category(column, training, max_categories, min_rows)
            if isinstance(column, Categories)
            else fit_number(column, training)
        )
        if isinstance(feature, str):
            dropped.append((column.name, feature))
        else:
            features.append(feature)
    if not features:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in [*table.dropped, *dropped][:6])
        raise DataError(
            f"{table.source} has no column to predict {target.name!r} from{': ' + reasons if reasons else ''}"
        )
    return Preprocessing(tuple(features), _fit_target(target, target_R[training])), dropped


def fit_number(column: Numbers, training: Rows) -> NumberFeature | str:
    """Median of the training rows that have a value; mean and standard deviation with it in the gaps.

    A reason to leave the column out, if all training rows are the same.
    """
    values_R = column.values[training]
    missing_R = np.isnan(values_R)
    if missing_R.all():
        return "every training row is missing"
    median = float(np.median(values_R[~missing_R]))
    mean, scale = moments(np.where(missing_R, median, values_R))
    if not scale and not missing_R.any():
        return f"every training row is {median:g}"
    return NumberFeature(column.name, column.kind, median, mean, scale or 1.0, bool(missing_R.any()))


def moments(values_R: Floats) -> tuple[float, float]:
    """Mean and standard deviation; 0 for a spread that is only rounding. Safe for values near the largest float."""
    largest = float(np.abs(values_R).max())
    if largest == 0:
        return 0.0, 0.0
    unit_R = values_R / largest
    deviation = float(unit_R.std())
    return float(unit_R.mean()) * largest, deviation * largest if deviation > ROUNDING else 0.0


def fit_category(column: Categories, training: Rows, max_categories: int, min_rows: int) -> CategoryFeature | str:
    """The most frequent words, at most `max_categories` and each in `min_rows` training rows.

    A reason to leave the column out, if all training rows would be the same.
    """
    codes_R = column.codes[training]
    counts = np.bincount(codes_R[codes_R >= 0], minlength=len(column.labels))
    seen = [code for code in np.argsort(-counts, kind="stable").tolist() if counts[code]]
    missing = bool((codes_R < 0).any())
    if len(seen) + missing < 2:
        return "all training rows are the same"
    words = [column.labels[code] for code in seen[:max_categories] if counts[code] >= min_rows]
    if len(words) == len(seen) - 1 < max_categories:  # a single rare word keeps its name: to pool it saves nothing
        words.append(column.labels[seen[-1]])
    if not words and not missing:
        return f"no word is in {min_rows} or more training rows"
    return CategoryFeature(column.name, tuple(sorted(words)), rare=len(words) < len(seen), missing=missing)


def _fit_target(target: Target, values: Floats) -> Target:
    if target.goal != "regression" or target.counts:
        return target
    mean, scale = moments(values)
    if not scale:
        raise DataError(f"target {target.name!r} has one value only in the training rows: there is nothing to learn")
    return replace(target, mean=mean, scale=scale)
