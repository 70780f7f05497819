"""Which columns a model can learn from; the others are left out, each with its reason.

Left out are columns that hold one value only, and those whose values name the row instead of describing it: a generalising
rule cannot be read from them, a model can only memorise.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import numpy as np

from chainrule.data.tables.column import Categories, Column, Numbers, Table, label

FEW_ROWS = 20  # below this, words that are all different may be categories by chance
NAMES_OF_IDENTIFIERS = re.compile(r"(^|[_\s-])(id|index|key|uuid|guid|rownames?|unnamed: 0)$", re.IGNORECASE)


def useful(table: Table, target: str, *, drop: Collection[str], keep: Collection[str]) -> tuple[Table, Column | None]:
    """The table of inputs and the target's column (None if there is none).

    drop  names of columns that are left out as asked
    keep  names of columns that stay, though they look like identifiers
    """
    columns, dropped = [], list(table.dropped)
    for column in table.columns:
        if column.name == target:
            continue
        reason = "as asked (table.drop)" if column.name in drop else why_useless(column, kept=column.name in keep)
        if reason:
            dropped.append((column.name, reason))
        else:
            columns.append(column)
    inputs = Table(table.source, table.rows, tuple(columns), tuple(dropped), table.remarks)
    return inputs, table.find(target)


def why_useless(column: Column, *, kept: bool = False) -> str:
    """The reason to leave a column out; "" if there is none."""
    if column.missing.all():
        return "every cell is missing"
    if value := the_only_value(column):
        return f"every cell is {value}"
    return "" if kept else why_identifier(column)


def the_only_value(column: Column) -> str:
    """The value of a column that has one only and no missing cell; else ""."""
    if column.missing.any():
        return ""
    if isinstance(column, Categories):
        return repr(column.labels[0]) if len(column.labels) == 1 else ""
    first = float(column.values[0])
    return label(first, column.kind) if (column.values == first).all() else ""


def why_identifier(column: Column) -> str:
    """Why the column looks like a name of the row; "" if it does not."""
    return _identifying_words(column) if isinstance(column, Categories) else _identifying_numbers(column)


def _identifying_words(column: Categories) -> str:
    present = int((column.codes >= 0).sum())
    if present >= FEW_ROWS and len(column.labels) > present / 2:
        return f"{len(column.labels):,} different words in {present:,} rows: an identifier or free text"
    return ""


def _identifying_numbers(column: Numbers) -> str:
    values_R = column.values
    if column.kind != "number" or len(values_R) < 2 or column.missing.any():
        return ""
    if values_R[0] in (0, 1) and len(values_R) >= FEW_ROWS and (np.diff(values_R) == 1).all():
        return "counts the rows: an identifier"
    whole = (values_R == np.floor(values_R)).all()
    if whole and NAMES_OF_IDENTIFIERS.search(column.name) and len(np.unique(values_R)) == len(values_R):
        return "a different whole number in each row, and its name says so: an identifier"
    return ""
