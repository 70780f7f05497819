"""What a column of targets holds: numbers, counts, two classes or more, and the figures that a choice of loss rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError
from chainrule.losses.entry import Kind

MOST_CODES = 30  # distinct integers up to which they may be the codes of classes
ROWS_PER_CODE = 10  # rows that there are for each class on average, if they are
LARGEST = float(np.finfo(np.float32).max)
SMALL_COUNT = 20.0  # median up to which integers are thought to be counts; larger ones are about normal


@dataclass(frozen=True)
class Targets:
    """A column of targets without what is missing.

    kind     what it holds
    reason   why that was concluded
    values   as float64; the number of the class for classes
    labels   of the classes, in order
    sizes    rows of each class
    missing  rows without a target
    """

    kind: Kind
    reason: str
    values: NDArray[np.float64]
    labels: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    missing: int = 0


def targets_of(column: Sequence[Any] | NDArray[Any], *, kind: Kind | None = None) -> Targets:
    """Look at a column: numbers, strings or booleans; None, nan and "" are missing.

    kind  what the user knows it to hold; None = conclude it from the values

    Raises DataError if it is empty, holds one value only, or names a different class in almost every row.
    """
    given = [value for value in np.asarray(column, dtype=object).ravel().tolist() if not _is_missing(value)]
    missing = int(np.asarray(column, dtype=object).size) - len(given)
    if not given:
        raise DataError(f"the target column holds no value ({missing:,} are missing); nothing can be learned from it")
    numbers = _as_numbers(given)
    if numbers is not None:
        _refuse_the_enormous(numbers)
    if len(set(given)) == 1:
        raise DataError(f"the target column holds one value only, {given[0]!r}, {len(given):,} times; nothing to learn")
    concluded, reason = _conclude(numbers, given)
    if kind is not None and kind != concluded:
        reason = f"as given; the values look like {concluded}: {reason}"
    kind = kind or concluded
    if kind in ("binary", "classes"):
        return _classes(kind, reason, numbers, given, missing)
    if numbers is None:
        raise DataError(f"targets are to be {kind}, but {_first_word(given)!r} is no number")
    return Targets(kind, reason, numbers, missing=missing)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and np.isnan(value))


def _as_numbers(given: list[Any]) -> NDArray[np.float64] | None:
    """The values as numbers, also where they were read as strings; None if one is none, or all are booleans."""
    if all(isinstance(value, bool) for value in given):
        return None
    try:
        return np.array([float(value) for value in given])
    except (ValueError, OverflowError):
        return None


def _refuse_the_enormous(numbers: NDArray[np.float64]) -> None:
    if (np.abs(numbers) > LARGEST).any():
        raise DataError(
            f"the target column holds {numbers[np.abs(numbers).argmax()]:.3g}, which float32 cannot hold; remove such rows, "
            "or change the unit"
        )


def _first_word(given: list[Any]) -> Any:
    return next(value for value in given if _as_numbers([value]) is None)


def _conclude(numbers: NDArray[np.float64] | None, given: list[Any]) -> tuple[Kind, str]:
    """What the values are, and why."""
    distinct = len(set(given)) if numbers is None else len(np.unique(numbers))
    if distinct == 2:
        return "binary", f"2 distinct values, {' and '.join(str(value) for value in sorted(set(given), key=str))}"
    if numbers is None:
        return "classes", f"{distinct:,} distinct words"
    if (numbers != np.round(numbers)).any():
        return "numbers", f"{distinct:,} distinct values, not all of them integers"
    return _integers(numbers, distinct)


def _integers(numbers: NDArray[np.float64], distinct: int) -> tuple[Kind, str]:
    low, high = int(numbers.min()), int(numbers.max())
    if _falls_off(numbers) and low in (0, 1) and float(np.median(numbers)) <= SMALL_COUNT:
        return (
            "counts",
            f"integers from {low} to {high} whose numbers fall off, as counts do (codes of classes? --kind classes)",
        )
    gapless = high - low + 1 == distinct
    if gapless and distinct <= MOST_CODES and len(numbers) >= ROWS_PER_CODE * distinct:
        return "classes", f"integers from {low} to {high} without a gap, as codes are (amounts? --kind numbers)"
    return "numbers", f"{distinct:,} distinct integers from {low:,} to {high:,}"


def _falls_off(numbers: NDArray[np.float64]) -> bool:
    """True if small values are many and large ones few: the last fifth of the range holds less than 5 % of the rows."""
    high = numbers.max()
    return bool(high >= 4 and (numbers > 0.8 * high).mean() < 0.05)


def _classes(kind: Kind, reason: str, numbers: NDArray[np.float64] | None, given: list[Any], missing: int) -> Targets:
    labels, codes, sizes = np.unique(
        numbers if numbers is not None else np.array([str(value) for value in given]),
        return_inverse=True,
        return_counts=True,
    )
    if kind == "binary" and len(labels) != 2:
        raise DataError(f"targets are to be binary, but the column holds {len(labels):,} distinct values")
    if len(labels) > len(given) / 2 and len(labels) > MOST_CODES:
        raise DataError(
            f"{len(labels):,} distinct values in {len(given):,} rows: the column names rows, not classes; "
            "choose another column, or --kind numbers"
        )
    words = tuple(f"{label:g}" if numbers is not None else str(label) for label in labels)
    return Targets(kind, reason, codes.astype(np.float64), words, tuple(int(size) for size in sizes), missing)
