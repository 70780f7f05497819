"""A table file, CSV or Parquet, to a Table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chainrule.data.tables.column import Column, Kind, Table, as_categories
from chainrule.data.tables.csv_rows import sniff
from chainrule.data.tables.csv_table import read_csv
from chainrule.data.tables.parquet_table import is_parquet, read_parquet
from chainrule.errors import DataError


def read_table(
    path: Path,
    *,
    encoding: str = "utf-8",
    delimiter: str = "",
    header: bool | None = None,
    kinds: Mapping[str, Kind] | None = None,
    verbatim: str = "",
) -> Table:
    """Read a file. `kinds` are those of columns that are known already, for instance {"zip": "category"}.

    verbatim  a column whose yes and no keep their words: they are the names of classes
    Encoding, delimiter ("" = found out) and header (None = found out) are those of a CSV file.
    Raises DataError for a file that cannot be used, with the line where one is to blame.
    """
    kinds = kinds or {}
    if path.is_dir() or not path.exists():
        raise DataError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}: a CSV or Parquet file is expected"
        )
    if is_parquet(path):
        table = read_parquet(path, kinds)
        return replace(table, columns=tuple(_as_kind(column, kinds) for column in table.columns))
    dialect = sniff(path, encoding=encoding, delimiter=delimiter, header=header)
    table = read_csv(path, dialect, kinds, verbatim)
    return replace(table, remarks=(f"CSV {dialect}", *table.remarks))


def _as_kind(column: Column, kinds: Mapping[str, Kind]) -> Column:
    return as_categories(column) if kinds.get(column.name) == "category" else column
