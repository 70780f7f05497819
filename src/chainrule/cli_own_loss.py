"""What `chainrule losses` does with a user's own files: examine a loss function, recommend a loss for a column."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from chainrule.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from chainrule.data.tables.column import Column
    from chainrule.losses import Recommendation
    from chainrule.losses.curves import Drawn
    from chainrule.losses.targets import Targets
    from chainrule.report import Report

Kind = Literal["numbers", "counts", "binary", "classes"]
Function: TypeAlias = Callable[[Any, Any], Any]


def examined(
    function: Function, name: str, *, data: Path | None, column: str | None, kind: Kind | None
) -> tuple[Report, Kind]:
    """The report on the loss function that FILE.py:function names, on a column's targets or drawn ones, and their kind."""
    from chainrule import api
    from chainrule.losses.samples import untrained, untrained_on

    if data is not None and column is not None:
        targets = targets_in(data, column, kind)
        batch, found = untrained_on(targets), targets.kind
        flags = f" --data {data} --target {column}"
    else:
        if kind is None:
            print("examined on targets that are numbers; --kind counts, binary or classes for others", file=sys.stderr)
        found = kind or "numbers"
        batch, flags = untrained(found), ""
    flags += f" --kind {kind}" if kind else ""
    return api.check_loss(function, *batch, where=name, command=f"chainrule losses {name}{flags}"), found


def drawn(function: Function, kind: Kind) -> tuple[Drawn, str]:
    """Your own loss and its slope along one number, and what that number is: as the catalogue draws a loss of the kind."""
    from chainrule.losses.classification import POSITIVE, RIGHT_CLASS
    from chainrule.losses.curves import slopes
    from chainrule.losses.regression import ERROR, LOG_RATE

    curve = {"numbers": ERROR, "counts": LOG_RATE, "binary": POSITIVE, "classes": RIGHT_CLASS}[kind]

    def term(x: Tensor) -> Tensor:
        at = curve.at(x)
        value: Tensor = function(at["prediction"], at["target"])
        return value

    return slopes(term, curve.low, curve.high), curve.axis


def recommended(data: Path, column: str, kind: Kind | None) -> Recommendation:
    """The loss that fits a column of a CSV or Parquet file."""
    from chainrule.losses.recommend import recommend_for

    return recommend_for(targets_in(data, column, kind))


def targets_in(data: Path, name: str, kind: Kind | None) -> Targets:
    """The column of a file. Raises DataError for a file that cannot be read, ConfigError for a column that it lacks."""
    from chainrule.data.tables.read import read_table
    from chainrule.losses.targets import targets_of

    table = read_table(data)
    column = table.find(name)
    if column is None:
        hint = did_you_mean(name, table.names, f"it has {', '.join(table.names)}")
        raise ConfigError(f"{data} has no column {name!r}; {hint}")
    return targets_of(_values(column), kind=kind)


def _values(column: Column) -> list[Any]:
    """What stands in the cells: numbers, or words, as which booleans are written too; None where nothing does."""
    from chainrule.data.tables.column import Categories, as_categories

    if isinstance(column, Categories) or column.kind == "boolean":
        words = as_categories(column)
        return [words.labels[code] if code >= 0 else None for code in words.codes.tolist()]
    return list(column.values.tolist())
