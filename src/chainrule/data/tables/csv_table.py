"""The second pass over a CSV file: its columns, read as the kinds that are known by now.

Cells of a number column that are no finite numbers are missing, and a remark says how many and where the first is.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chainrule.data.tables import cells
from chainrule.data.tables.column import Categories, Column, Kind, Numbers, Table, shortened
from chainrule.data.tables.csv_rows import Dialect
from chainrule.data.tables.survey import MAX_WORDS, Survey, chunks, plain_numbers, survey
from chainrule.errors import DataError

MEANT = {"number": "finite number", "boolean": "true or false", "date": "ISO 8601 date"}


def read_csv(path: Path, dialect: Dialect, kinds: Mapping[str, Kind], verbatim: str = "") -> Table:
    """Columns named in `kinds` are read as that; of the others the kind is found by a survey of the file.

    The column `verbatim` keeps its words where it says yes and no: they are the names of classes.
    """
    surveys, rows = survey(path, dialect)
    found: dict[str, Kind] = {}
    dropped = []
    for name, one in zip(dialect.names, surveys, strict=True):
        kind = kinds.get(name) or ("category" if name == verbatim and one.kind == "boolean" else one.kind)
        if kind is None:
            dropped.append((name, "every cell is missing"))
        elif kind == "category" and one.words is None and name not in kinds:
            dropped.append((name, f"more than {MAX_WORDS:,} different words: an identifier or free text"))
        else:
            found[name] = kind
    columns, remarks = read_columns(path, dialect, found)
    _refuse_a_moving_file(path, rows, columns)
    remarks += [text for name, one in zip(dialect.names, surveys, strict=True) for text in _of_dates(name, one, found)]
    return Table(str(path), rows, tuple(columns), tuple(dropped), tuple(remarks))


def read_columns(path: Path, dialect: Dialect, kinds: Mapping[str, Kind]) -> tuple[list[Column], list[str]]:
    """The columns in `kinds`, in the order of the file, and remarks on cells that were taken as missing."""
    makers: dict[str, NumberMaker | CategoryMaker] = {
        name: CategoryMaker(name) if kinds[name] == "category" else NumberMaker(name, kinds[name], dialect.decimal)
        for name in dialect.names
        if name in kinds
    }
    for lines, columns in chunks(path, dialect):
        for name, texts in zip(dialect.names, columns, strict=True):
            if name in makers:
                makers[name].take(texts, lines)
    remarks = [maker.remark(path) for maker in makers.values() if isinstance(maker, NumberMaker) and maker.odd]
    return [maker.column() for maker in makers.values()], remarks


@dataclass
class NumberMaker:
    """Grows a column of numbers; `odd` counts cells that are neither missing nor what is meant, `first` is one of them."""

    name: str
    kind: Kind
    decimal: str
    values: array[float] = field(default_factory=lambda: array("d"))
    odd: int = 0
    first: tuple[int, str] = (0, "")

    def take(self, texts: Sequence[str], lines: Sequence[int]) -> None:
        """Add some cells."""
        if self.kind == "number" and (values_R := plain_numbers(texts)) is not None:
            self.values.frombytes(values_R.tobytes())
            return
        read = self._reader()
        for text, line in zip(texts, lines, strict=True):
            value = cells.finite(read(text))
            self.values.append(value)
            if math.isnan(value) and not cells.is_missing(text):
                self.first = self.first if self.odd else (line, text)
                self.odd += 1

    def _reader(self) -> Callable[[str], float | None]:
        if self.kind == "number":
            return lambda text: cells.number(text, self.decimal)
        return cells.truth if self.kind == "boolean" else cells.days

    def remark(self, path: Path) -> str:
        """Say which cells were taken as missing."""
        line, text = self.first
        return (
            f"{self.name!r}: {self.odd:,} of {len(self.values):,} cells are no {MEANT[self.kind]} and taken as missing, "
            f"the first is {shortened(text)!r} ({path.name}:{line})"
        )

    def column(self) -> Numbers:
        """The column, when all cells were taken."""
        return Numbers(self.name, np.frombuffer(self.values, dtype=np.float64), self.kind)


@dataclass
class CategoryMaker:
    """Grows a column of categories."""

    name: str
    codes: array[int] = field(default_factory=lambda: array("q"))
    known: dict[str, int] = field(default_factory=dict)

    def take(self, texts: Sequence[str], lines: Sequence[int]) -> None:  # noqa: ARG002  as NumberMaker's
        """Add some cells; spaces around a word do not count."""
        known = self.known
        codes = {
            text: -1 if cells.is_missing(text) else known.setdefault(text.strip(), len(known))
            for text in dict.fromkeys(texts)
        }
        self.codes.extend(codes[text] for text in texts)

    def column(self) -> Categories:
        """The column, when all cells were taken."""
        return Categories(self.name, np.frombuffer(self.codes, dtype=np.int64), tuple(self.known))


def _refuse_a_moving_file(path: Path, rows: int, columns: Sequence[Column]) -> None:
    if any(len(column.missing) != rows for column in columns):
        raise DataError(f"{path} was changed while it was read; read it again when it is complete")


def _of_dates(name: str, one: Survey, kinds: Mapping[str, Kind]) -> list[str]:
    if kinds.get(name) != "date" or one.kind != "date":
        return []
    return [f"{name!r}: ISO 8601 dates, taken as days since 1970-01-01"]
