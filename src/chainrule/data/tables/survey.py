"""The first pass over a CSV file: what each column holds, without keeping it; and the kind that follows.

A column is numbers if at least 95 % of its cells that are not missing are numbers, else booleans or dates by the same
share, else categories. A file of any length is surveyed in the memory of its distinct words, and of those at most
MAX_WORDS a column are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from chainrule.data.tables import cells
from chainrule.data.tables.column import Floats, Kind
from chainrule.data.tables.csv_rows import Dialect, rows
from chainrule.errors import DataError

SHARE = 0.95
MAX_WORDS = 10_000
CELLS_AT_ONCE = 2**16
ROWS_AT_ONCE = 64  # at least: each block costs some microseconds a column

Chunk = tuple[list[int], list[tuple[str, ...]]]  # line numbers of some rows; their cells column by column


@dataclass
class Survey:
    """Counts of the cells of one column; `words` are its distinct texts that are no numbers, None if too many."""

    missing: int = 0
    numbers: int = 0
    truths: int = 0
    dates: int = 0
    others: int = 0
    words: set[str] | None = field(default_factory=set)

    @property
    def present(self) -> int:
        """Cells that are not missing."""
        return self.numbers + self.truths + self.dates + self.others

    def see(self, texts: Sequence[str], decimal: str) -> None:
        """Count some cells."""
        if (values := plain_numbers(texts)) is not None:
            missing = int(np.isnan(values).sum())
            self.missing += missing
            self.numbers += len(texts) - missing
            return
        for text, count in Counter(texts).items():
            self._count(text, count, decimal)

    def _count(self, text: str, count: int, decimal: str) -> None:
        if cells.is_missing(text):
            self.missing += count
            return
        if cells.number(text, decimal) is not None:
            self.numbers += count
            return
        if cells.truth(text) is not None:
            self.truths += count
        elif cells.days(text) is not None:
            self.dates += count
        else:
            self.others += count
        if self.words is not None:
            self.words.add(text.strip())
            self.words = self.words if len(self.words) <= MAX_WORDS else None

    @property
    def kind(self) -> Kind | None:
        """The kind by majority; None if every cell is missing."""
        if not self.present:
            return None
        counts: list[tuple[Kind, int]] = [("number", self.numbers), ("boolean", self.truths), ("date", self.dates)]
        return next((kind for kind, count in counts if count >= SHARE * self.present), "category")


def plain_numbers(texts: Sequence[str]) -> Floats | None:
    """The numbers, if every text is a finite one or empty (nan): the fast way for most columns of most files."""
    try:
        values_R = np.array([float(text or "nan") for text in texts])
    except ValueError:
        return None
    return None if np.isinf(values_R).any() or "_" in "".join(texts) else values_R


def chunks(path: Path, dialect: Dialect) -> Iterator[Chunk]:
    """The file in blocks of rows, turned into columns."""
    source = rows(path, dialect)
    size = max(ROWS_AT_ONCE, CELLS_AT_ONCE // len(dialect.names))
    while block := list(islice(source, size)):
        yield [line for line, _ in block], list(zip(*(fields for _, fields in block), strict=True))


def survey(path: Path, dialect: Dialect) -> tuple[list[Survey], int]:
    """A survey of each column, and the number of rows. Raises DataError if the file is damaged or has no rows."""
    surveys = [Survey() for _ in dialect.names]
    count = 0
    for lines, columns in chunks(path, dialect):
        count += len(lines)
        for one, texts in zip(surveys, columns, strict=True):
            one.see(texts, dialect.decimal)
    if not count:
        raise DataError(
            f"{path} has no rows below its first one: a table with a row of names and rows of values is expected"
        )
    return surveys, count
