"""A Parquet file by pyarrow, the extra `[parquet]`: numbers, booleans, dates and words; nested columns are left out."""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.data.tables import cells
from chainrule.data.tables.column import Categories, Column, Kind, Numbers, Table
from chainrule.data.tables.survey import MAX_WORDS
from chainrule.errors import DataError

MAGIC = b"PAR1"
MICROSECONDS_OF_A_DAY = 86_400e6


def is_parquet(path: Path) -> bool:
    """By its first bytes, whatever its name; a .parquet file without them is one that is damaged."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC or path.suffix in (".parquet", ".pq")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def read_parquet(path: Path, kept: Collection[str] = ()) -> Table:
    """All usable columns; those in `kept` even if every cell is missing.

    Raises DataError if pyarrow is missing, the file is damaged, or has no rows.
    """
    arrow = _pyarrow()
    try:
        file = import_module("pyarrow.parquet").ParquetFile(path, memory_map=True)
        _refuse_twins(path, file.schema_arrow.names)
        table = file.read()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is no Parquet file, or damaged: {_first_line(error)}") from None
    if not table.num_rows:
        raise DataError(f"{path} has no rows")
    columns: list[Column] = []
    dropped, remarks = [], []
    for name in table.column_names:
        kind = _kind(arrow, table.schema.field(name).type)
        column = _column(arrow, name, kind, table.column(name)) if kind else None
        if column is None and kind and name in kept:
            column = Numbers(name, np.full(table.num_rows, math.nan))
        if kind is None:
            dropped.append((name, f"its type is {table.schema.field(name).type}: no number, date or word"))
        elif column is None:
            dropped.append((name, "every cell is missing"))
        elif isinstance(column, Categories) and len(column.labels) > MAX_WORDS:
            dropped.append((name, f"more than {MAX_WORDS:,} different words: an identifier or free text"))
        else:
            columns.append(column)
            remarks += [f"{name!r}: dates, taken as days since 1970-01-01"] if kind == "date" else []
    return Table(str(path), table.num_rows, tuple(columns), tuple(dropped), tuple(remarks))


def _pyarrow() -> Any:
    try:
        return import_module("pyarrow")
    except ImportError:
        raise DataError(
            "reading Parquet needs pyarrow, which is not installed: pip install 'chainrule[parquet]'"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].rstrip(". ")


def _refuse_twins(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; give each its own name")


def _kind(arrow: Any, type_: Any) -> Kind | None:
    types = arrow.types
    if types.is_dictionary(type_):
        return _kind(arrow, type_.value_type)
    if types.is_boolean(type_):
        return "boolean"
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_timestamp(type_) or types.is_date(type_):
        return "date"
    return "category" if types.is_string(type_) or types.is_large_string(type_) or types.is_null(type_) else None


def _column(arrow: Any, name: str, kind: Kind, cells_R: Any) -> Column | None:
    """The column; None if every cell is missing."""
    if cells_R.null_count == len(cells_R):
        return None
    if arrow.types.is_dictionary(cells_R.type):
        cells_R = cells_R.cast(cells_R.type.value_type)
    if kind == "category":
        return _categories(name, cells_R)
    if kind == "date":
        micros_R = cells_R.cast(arrow.timestamp("us")).cast(arrow.int64())
        return Numbers(name, _floats(arrow, micros_R) / MICROSECONDS_OF_A_DAY, kind)
    values_R = _floats(arrow, cells_R)
    values_R[~np.isfinite(values_R)] = math.nan
    return Numbers(name, values_R, kind) if not np.isnan(values_R).all() else None


def _floats(arrow: Any, cells_R: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(cells_R.cast(arrow.float64(), safe=False).to_numpy(), dtype=np.float64)


def _categories(name: str, cells_R: Any) -> Column | None:
    """Words as codes; words that stand for a missing cell are missing."""
    encoded = cells_R.dictionary_encode().combine_chunks()
    words = [text.strip() for text in encoded.dictionary.to_pylist()]
    known: dict[str, int] = {}
    renamed = np.array([-1 if cells.is_missing(w) else known.setdefault(w, len(known)) for w in words] + [-1])
    codes_R = renamed[encoded.indices.fill_null(len(words)).to_numpy()].astype(np.int64)
    return Categories(name, codes_R, tuple(known)) if known else None
