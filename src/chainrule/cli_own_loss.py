"""What `chainrule losses` does with a user's own files: examine a loss function, recommend a loss for a column."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from chainrule.errors import ConfigError
from chainrule.setup_file import load_loss

if TYPE_CHECKING:
    from torch import Tensor

    from chainrule.data.tables.column import Column
    from chainrule.losses import Recommendation
    from chainrule.losses.curves import Drawn
    from chainrule.losses.targets import Targets
    from chainrule.report import Report

Kind = Literal["numbers", "counts", "binary", "classes"]


def examined(target: str, *, data: Path | None, column: str | None, kind: Kind | None) -> tuple[Report, Kind]:
    """The report on the loss function that FILE.py:function names, on a column's targets or drawn ones, and their kind."""
    function = load_loss(target)
    from chainrule import api
    from chainrule.losses.samples import untrained, untrained_on

    found: Kind = kind or "numbers"
    if data is not None and column is not None:
        targets = targets_in(data, column, kind)
        batch, found = untrained_on(targets), cast(Kind, targets.kind)
        flags = f" --data {data} --target {column}"
    else:
        if kind is None:
            print("examined on targets that are numbers; --kind counts, binary or classes for others", file=sys.stderr)
        batch, flags = untrained(found), ""
    flags += f" --kind {kind}" if kind else ""
    return api.check_loss(function, *batch, where=target, command=f"chainrule losses {target}{flags}"), found


def drawn(target: str, kind: Kind) -> tuple[Drawn, str]:
    """Your own loss and its slope along one number, and what that number is: as the catalogue draws a loss of the kind."""
    from chainrule.losses.classification import POSITIVE, RIGHT_CLASS
    from chainrule.losses.curves import slopes
    from chainrule.losses.regression import MSE, POISSON

    curves = {"numbers": MSE.curve, "counts": POISSON.curve, "binary": POSITIVE, "classes": RIGHT_CLASS}
    function, curve = load_loss(target), curves[kind]

    def term(x: Tensor) -> Tensor:
        at = curve.at(x)
        value: Tensor = function(at["prediction"], at["target"].to(x.dtype) if kind == "binary" else at["target"])
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
        near = get_close_matches(name, table.names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(table.names)}"
        raise ConfigError(f"{data} has no column {name!r}; {hint}")
    return targets_of(_values(column), kind=kind)


def _values(column: Column) -> list[Any]:
    """What stands in the cells: numbers, or words, as which booleans are written too; None where nothing does."""
    from chainrule.data.tables.column import Categories, as_categories

    if isinstance(column, Categories) or column.kind == "boolean":
        words = as_categories(column)
        return [words.labels[code] if code >= 0 else None for code in words.codes.tolist()]
    return list(column.values.tolist())
