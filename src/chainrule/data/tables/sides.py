"""Training, validation and test rows: chosen by a hash of each row's content, of its number, or by its place in the file.

By content, equal rows are always on one side, so that no row is validated that was trained on, and a row keeps its side when
the file is sorted anew. For classes each class is divided by itself (stratified).

R rows
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chainrule.data.order import mix
from chainrule.data.tables.column import Categories, Column, Floats
from chainrule.errors import DataError

By = Literal["content", "index", "last"]
Rows = NDArray[np.int64]
_Words = NDArray[np.uint64]

_MISSING = np.uint64(0x6D697373)


@dataclass(frozen=True, eq=False)
class Sides:
    """Row numbers of the three sides, ascending, and in words how they were chosen."""

    training: Rows
    validation: Rows
    test: Rows
    rule: str


def row_words(columns: Sequence[Column], rows: int, seed: int) -> _Words:
    """A 64-bit word for each row that depends on the seed and on what its cells say, not on where the row stands."""
    words_R = np.full(rows, mix(np.array([seed], np.uint64))[0], dtype=np.uint64)
    for column in sorted(columns, key=lambda column: column.name):
        words_R = mix(words_R ^ _cell_words(column))
    return words_R


def _cell_words(column: Column) -> _Words:
    if isinstance(column, Categories):
        table = np.array([_word(name) for name in column.labels] + [_MISSING], dtype=np.uint64)
        return mix(table[column.codes])
    bits_R = np.where(column.values == 0, 0.0, column.values).view(np.uint64)  # -0.0 is 0.0
    return mix(np.where(column.missing, _MISSING, bits_R))


def _word(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def divide(
    columns: Sequence[Column],
    target_R: Floats,
    *,
    classes: int,
    by: By,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
) -> Sides:
    """Divide the rows whose target is known. Raises DataError if a side would be empty.

    columns   of the inputs
    target_R  numbers or class numbers, nan where unknown
    classes   0 = regression: not stratified
    """
    known_R = np.flatnonzero(~np.isnan(target_R))
    rows = len(target_R)
    shares = (test_fraction, validation_fraction)
    if by == "last":
        parts = [_cut(known_R, np.arange(len(known_R), 0, -1, dtype=np.uint64), shares)]
    else:
        words_R = row_words(columns if by == "content" else [], rows, seed)
        if by == "index":
            words_R = mix(words_R ^ np.arange(rows, dtype=np.uint64))
        strata = [known_R[target_R[known_R] == one] for one in range(classes)] if classes else [known_R]
        parts = [_cut(stratum_R, words_R[stratum_R], shares) for stratum_R in strata]
    test, validation, training = (np.sort(np.concatenate(side)) for side in zip(*parts, strict=True))
    _refuse_empty(len(known_R), training, validation, test if test_fraction else None)
    return Sides(training, validation, test, _rule(by, stratified=bool(classes) and by != "last"))


def _cut(rows_R: Rows, words_R: _Words, shares: Iterable[float]) -> list[Rows]:
    """Give out rows in the order of their words, a share to each side and the rest to the last; equal words stay together."""
    order = np.argsort(words_R, kind="stable")
    rows_R, words_R = rows_R[order], words_R[order]
    starts = np.flatnonzero(np.r_[True, words_R[1:] != words_R[:-1]]) if len(words_R) else np.zeros(1, dtype=np.int64)
    ends = np.r_[starts, len(rows_R)]
    sides, at, wanted = [], 0, 0.0
    for share in shares:
        wanted += share * len(rows_R)
        end = max(at, int(ends[np.abs(ends - wanted).argmin()]))
        sides.append(rows_R[at:end])
        at = end
    return [*sides, rows_R[at:]]


def _refuse_empty(known: int, training: Rows, validation: Rows, test: Rows | None) -> None:
    sides = {"training": training, "validation": validation} | ({} if test is None else {"test": test})
    for name, side in sides.items():
        if len(side) == 0:
            raise DataError(
                f"{known:,} rows with a target are too few, or too alike, for a {name} side; "
                "more rows are needed, or another table.validation_fraction, test_fraction or split"
            )


def _rule(by: By, *, stratified: bool) -> str:
    how = {
        "content": "by a hash of each row's content, so that equal rows are on one side",
        "index": "by a hash of each row's number",
        "last": "the last rows are the test, those before them the validation",
    }
    return how[by] + (", each class by itself" if stratified else "")
