"""A column of a table: numbers, or categories as codes into labels; and the table that holds them.

R rows
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["number", "boolean", "date", "category"]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of R numbers; nan where the cell is missing.

    kind "boolean": 1 is true; "date": days since 1970-01-01
    """

    name: str
    values: Floats
    kind: Kind = "number"

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the cell is missing."""
        return np.isnan(self.values)


@dataclass(frozen=True, eq=False)
class Categories:
    """A column of words: codes into `labels`, -1 where the cell is missing. Labels stand in the order of the file."""

    name: str
    codes: Codes
    labels: tuple[str, ...]

    @property
    def kind(self) -> Kind:
        """Always "category"."""
        return "category"

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the cell is missing."""
        return self.codes < 0


Column = Numbers | Categories


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, what was left out of the file, as (column, reason), and what else is worth knowing."""

    source: str
    rows: int
    columns: tuple[Column, ...]
    dropped: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()

    def find(self, name: str) -> Column | None:
        """The column of this name; None if there is none."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def names(self) -> list[str]:
        """Names in the order of the file."""
        return [column.name for column in self.columns]


def as_categories(column: Column) -> Categories:
    """Numbers as words: 3.0 is "3", a boolean is "true" or "false"; labels in the order of their numbers."""
    if isinstance(column, Categories):
        return column
    present_R = ~column.missing
    values, codes = np.unique(column.values[present_R], return_inverse=True)
    codes_R = np.full(len(column.values), -1, dtype=np.int64)
    codes_R[present_R] = codes
    return Categories(column.name, codes_R, tuple(label(value, column.kind) for value in values.tolist()))


def label(value: float, kind: Kind) -> str:
    """How a number is written when it stands for a class or a category."""
    if kind == "boolean":
        return "true" if value else "false"
    return str(int(value)) if value.is_integer() else repr(value)


def quoted(names: Iterable[str], at_most: int = 6) -> str:
    """Names for a message, in quotes, the first few of them."""
    names = list(names)
    rest = f" and {len(names) - at_most:,} more" if len(names) > at_most else ""
    return ", ".join(repr(shortened(name)) for name in names[:at_most]) + rest


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a long text."""
    return text if len(text) <= length else f"{text[:length]}..."


def counted(number: int, noun: str) -> str:
    """1 cell, 2 cells."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
