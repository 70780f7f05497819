"""Apply the preprocessing: rows of any file to the inputs of the model.

R rows, F inputs
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data.tables.column import Categories, Column, Numbers, Table, as_categories, counted, quoted
from chainrule.data.tables.preprocess import CategoryFeature, Feature, NumberFeature, Preprocessing
from chainrule.errors import DataError


def inputs_of(table: Table, preprocessing: Preprocessing) -> tuple[NDArray[np.float32], list[str]]:
    """(R, F) inputs of any rows, and remarks on cells that training has not seen the like of.

    The order of the columns does not matter and more columns than needed do no harm; raises DataError for missing ones.
    """
    found = {column.name: column for column in table.columns}
    missing = [feature.name for feature in preprocessing.features if feature.name not in found]
    if missing:
        raise DataError(
            f"{table.source} has no column {quoted(missing)}, which the model needs; it has {quoted(table.names)}"
        )
    x_RF = np.zeros((table.rows, preprocessing.width), dtype=np.float32)
    remarks: list[str] = []
    at = 0
    for feature in preprocessing.features:
        for values_R in _inputs(found[feature.name], feature, remarks):
            x_RF[:, at] = values_R
            at += 1
    return x_RF, remarks


def _inputs(column: Column, feature: Feature, remarks: list[str]) -> Iterator[NDArray[Any]]:
    if isinstance(feature, CategoryFeature):
        yield from _one_hot(as_categories(column), feature, remarks)
    elif isinstance(column, Categories):
        raise DataError(f"column {column.name!r} holds words ({quoted(column.labels, 3)}); in training it held numbers")
    else:
        yield from _standardised(column, feature, remarks)


def _standardised(column: Numbers, feature: NumberFeature, remarks: list[str]) -> Iterator[NDArray[Any]]:
    missing_R = column.missing
    filled_R = np.where(missing_R, feature.median, column.values)
    yield np.clip((filled_R / feature.scale - feature.mean / feature.scale), -1e30, 1e30)
    if feature.indicator:
        yield missing_R
    elif missing_R.any():
        remarks.append(
            f"{column.name!r}: {counted(int(missing_R.sum()), 'missing cell')}, in training there were none; "
            f"the median {feature.median:g} is taken"
        )


def _one_hot(column: Categories, feature: CategoryFeature, remarks: list[str]) -> Iterator[NDArray[Any]]:
    places = {word: place for place, word in enumerate(feature.words)}
    other, missing = len(places), len(places) + 1
    table = np.array([places.get(word, other) for word in column.labels] + [missing])
    place_R = table[column.codes]
    for place in range(len(places)):
        yield place_R == place
    if feature.rare:
        yield place_R == other
    if feature.missing:
        yield place_R == missing
    _remark_unseen(column, feature, place_R, remarks)


def _remark_unseen(column: Categories, feature: CategoryFeature, place_R: NDArray[Any], remarks: list[str]) -> None:
    other, missing = len(feature.words), len(feature.words) + 1
    if not feature.rare and (count := int((place_R == other).sum())):
        unseen = sorted(set(column.labels) - set(feature.words))
        remarks.append(
            f"{column.name!r}: {counted(count, 'cell')} with words that training has not seen ({quoted(unseen, 3)})"
        )
    if not feature.missing and (count := int((place_R == missing).sum())):
        remarks.append(
            f"{column.name!r}: {counted(count, 'missing cell')}, in training there were none; its inputs are all 0"
        )
