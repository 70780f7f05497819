"""What is to be predicted: regression, one of two classes, or one of several; found out from the target's column.

R rows
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chainrule.data.tables.column import Categories, Column, Floats, Numbers, as_categories, label, quoted
from chainrule.errors import DataError

Goal = Literal["regression", "binary", "multi-class"]

MOST_NUMBERED_CLASSES = 20
FEWEST_ROWS_OF_A_CLASS = 5  # on average: numbers that repeat less are measurements


@dataclass(frozen=True)
class Target:
    """The target's column and what is made of it.

    classes  labels in the order of the outputs; () for regression; of two, the second is the positive one
    mean, scale  of the training rows' values: a regression learns (y - mean) / scale
    counts   it learns the logarithm of a rate instead, by a Poisson loss; mean and scale are 0 and 1
    """

    name: str
    goal: Goal
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    counts: bool = False

    @property
    def outputs(self) -> int:
        """Outputs of the model: one number, one logit, or one logit a class."""
        return len(self.classes) if self.goal == "multi-class" else 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "classes": list(self.classes)}

    @staticmethod
    def from_dict(saved: dict[str, Any]) -> Target:
        """What `to_dict` wrote."""
        return Target(**{**saved, "classes": tuple(saved["classes"])})


def find_goal(column: Column) -> tuple[Goal, str]:
    """The goal that the target's values suggest, and why. Raises DataError if there is nothing to predict."""
    present_R = ~column.missing
    if not present_R.any():
        raise DataError(f"target {column.name!r}: every cell is missing, so there is nothing to learn")
    if isinstance(column, Categories):
        return _of_classes(column, len(column.labels), int(present_R.sum()), "words")
    values = np.unique(column.values[present_R])
    if column.kind == "boolean" or len(values) <= 2:
        return _of_classes(column, len(values), int(present_R.sum()), "values")
    if _numbers_are_classes(values, int(present_R.sum())):
        return (
            "multi-class",
            f"{len(values)} whole numbers, {label(values[0], 'number')} to {label(values[-1], 'number')}",
        )
    return "regression", f"{len(values):,} different numbers"


def _of_classes(column: Column, classes: int, rows: int, what: str) -> tuple[Goal, str]:
    if classes == 1:
        raise DataError(f"target {column.name!r} has one value only, {_only(column)}: there is nothing to learn")
    if classes > max(2, rows / 2):
        raise DataError(
            f"target {column.name!r} has {classes:,} different {what} in {rows:,} rows: too many to be classes. "
            "Name another column with --table.target"
        )
    return ("binary" if classes == 2 else "multi-class"), f"{classes} different {what}"


def _only(column: Column) -> str:
    return repr(as_categories(column).labels[0])


def _numbers_are_classes(values: Floats, rows: int) -> bool:
    whole = bool((values == np.floor(values)).all())
    few = len(values) <= MOST_NUMBERED_CLASSES and rows >= FEWEST_ROWS_OF_A_CLASS * len(values)
    close = bool(values[-1] - values[0] < 2 * len(values))  # 0 ... 9, not 10, 200, 5000
    return whole and few and close


def make_target(column: Column, goal: Goal, *, counts: bool = False) -> Target:
    """The target for this goal. Raises DataError if the column cannot serve it."""
    if goal == "regression":
        return _counts(column) if counts else _regression(column)
    categories = as_categories(column)
    present = np.unique(categories.codes[categories.codes >= 0])
    classes = tuple(categories.labels[code] for code in present.tolist())
    if isinstance(column, Categories):
        classes = tuple(sorted(classes))
    if len(classes) < 2 or (goal == "binary" and len(classes) > 2):
        raise DataError(
            f"table.goal is {goal!r} and target {column.name!r} has {len(classes)} different values ({quoted(classes)}); "
            + ("two are needed" if goal == "binary" else "two or more are needed")
        )
    return Target(column.name, goal, classes)


def _regression(column: Column) -> Target:
    if isinstance(column, Categories):
        raise DataError(
            f"table.goal is 'regression' and target {column.name!r} holds words ({quoted(column.labels, 3)}): "
            "numbers are needed"
        )
    values = np.unique(column.values[~column.missing])
    if len(values) < 2:
        raise DataError(f"target {column.name!r} has one value only: there is nothing to learn")
    return Target(column.name, "regression")


def _counts(column: Column) -> Target:
    target = _regression(column)
    if isinstance(column, Numbers) and (least := float(np.nanmin(column.values))) < 0:
        raise DataError(f"target {column.name!r} has negative values (the least is {least:g}): the loss takes counts")
    return replace(target, counts=True)


def values_of(column: Column, target: Target) -> Floats:
    """(R,) numbers in the column's own unit, or class numbers; nan where missing or of a class that is not known."""
    if target.goal == "regression":
        if isinstance(column, Numbers):
            return column.values
        raise DataError(f"target {column.name!r} holds words ({quoted(column.labels, 3)}): numbers are needed")
    categories = as_categories(column)
    places = {name: float(place) for place, name in enumerate(target.classes)}
    table = np.array([places.get(name, np.nan) for name in categories.labels] + [np.nan])  # the last stands for -1
    values_R: NDArray[np.float64] = table[categories.codes]
    return values_R
