"""The rows of a run: read, divided and turned into inputs once, and kept in the run folder, so that a resumed run has the same.

N rows of one side, F inputs
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from chainrule.data.tables.answers import learned
from chainrule.data.tables.apply import inputs_of
from chainrule.data.tables.column import Column, Floats, Kind, Table, quoted
from chainrule.data.tables.fit import fit
from chainrule.data.tables.preprocess import Preprocessing
from chainrule.data.tables.read import read_table
from chainrule.data.tables.sides import Sides, divide
from chainrule.data.tables.target import Target, find_goal, make_target, values_of
from chainrule.data.tables.useful import useful, why_useless
from chainrule.errors import CheckpointError, DataError, did_you_mean
from chainrule.train.atomic import read_json, write_folder, write_json
from chainrule.train.chosen_loss import takes_counts
from chainrule.train.config import TableConfig, TrainConfig
from chainrule.train.engine import Batch
from chainrule.train.records import Listener

FOLDER = "data"
SIDES = ("training", "validation", "test")


@dataclass(frozen=True)
class TableFacts:
    """Where the rows come from, for the reader of a report."""

    source: str
    rows: int
    rows_without_target: int
    rule: str
    goal: str
    left_out: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Side:
    """Rows of one side: inputs, and targets in the file's own unit (or class numbers)."""

    x_NF: NDArray[np.float32]  # noqa: N815
    y_N: Floats  # noqa: N815

    def __len__(self) -> int:
        return len(self.y_N)


@dataclass(frozen=True, eq=False)
class TableData:
    """The preprocessing and the three sides."""

    preprocessing: Preprocessing
    sides: dict[str, Side]
    facts: TableFacts


@dataclass(frozen=True, eq=False)
class Rows:
    """The examples of one side, as the loop takes them."""

    side: Side
    target: Target
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.side)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """inputs (B, F); targets (B,): standardised numbers, 0.0 or 1.0, or class numbers."""
        kind = torch.int64 if self.target.goal == "multi-class" else self.dtype
        return {
            "inputs": torch.from_numpy(self.side.x_NF[indices]).to(device, self.dtype),
            "targets": torch.from_numpy(learned(self.side.y_N[indices], self.target)).to(kind).to(device),
        }


# --- prepare ----------------------------------------------------------------------------------------------------------


def prepare(config: TrainConfig, listener: Listener) -> TableData:
    """Read, divide and preprocess the table of a new run. Raises DataError if it cannot be used."""
    settings = config.table
    with listener.phase(f"reading {settings.file}"):
        whole = read(settings)
    table, column = useful(whole, settings.target, drop=settings.drop, keep=settings.keep)
    column = require_target(column, whole, settings.target)
    goal, reason = find_goal(column) if settings.goal == "auto" else (settings.goal, "as set")
    target = make_target(column, goal, counts=takes_counts(config.loss))
    y_R = values_of(column, target)
    rows = divided(whole, target, y_R, config)
    preprocessing, constant = fit(
        table, target, y_R, rows.training, max_categories=settings.max_categories, min_rows=settings.min_rows
    )
    x_RF, unseen = inputs_of(table, preprocessing)
    sides = {name: Side(x_RF[chosen], y_R[chosen]) for name in SIDES if len(chosen := getattr(rows, name))}
    without = int(np.isnan(y_R).sum())
    left_out, remarks = (*table.dropped, *constant), (*table.remarks, *unseen)
    return TableData(
        preprocessing, sides, TableFacts(table.source, table.rows, without, rows.rule, reason, left_out, remarks)
    )


def read(settings: TableConfig) -> Table:
    """The file of a new run, as the settings say. Raises DataError for a column that is named and not there."""
    kinds: dict[str, Kind] = dict.fromkeys(settings.categories, "category")
    if settings.goal == "regression":
        kinds[settings.target] = "number"
    table = read_as(Path(settings.file).expanduser(), settings, kinds)
    names = [*table.names, *(name for name, _ in table.dropped)]
    for setting in ("drop", "keep", "categories"):
        require_known(getattr(settings, setting), names, f"table.{setting}", table.source)
    require_known([settings.target], names, "table.target", table.source)
    return table


def read_as(file: Path, settings: TableConfig, kinds: Mapping[str, Kind]) -> Table:
    """Any file, written as the settings say; the kinds of some columns are known."""
    return read_table(
        file,
        encoding=settings.encoding,
        delimiter=settings.delimiter,
        header={"auto": None, "yes": True, "no": False}[settings.header],
        kinds=kinds,
        verbatim=settings.target,
    )


def divided(table: Table, target: Target, y_R: Floats, config: TrainConfig) -> Sides:
    """The sides of the rows, as the settings say."""
    return divide(
        told_apart_by(table, target.name),
        y_R,
        classes=len(target.classes),
        by=config.table.split,
        seed=config.seed,
        validation_fraction=config.table.validation_fraction,
        test_fraction=config.table.test_fraction,
    )


def told_apart_by(table: Table, target: str) -> list[Column]:
    """The columns whose content decides a row's side: also those that are dropped, so that runs with and without one compare."""
    return [column for column in table.columns if column.name != target and not why_useless(column)]


def require_known(wanted: Collection[str], names: Collection[str], setting: str, source: str) -> None:
    """Raise DataError if the file has no such column; the nearest name is offered."""
    for name in wanted:
        if name not in names:
            hint = did_you_mean(name, names, f"its columns are {quoted(names, 12)}", show=repr)
            raise DataError(f"{setting} is {name!r}, and {source} has no such column; {hint}")


def require_target(column: Column | None, table: Table, name: str) -> Column:
    """Raise DataError if the target's column could not be read, with the reason."""
    if column is None:
        raise DataError(f"target {name!r} of {table.source} cannot be learned: {dict(table.dropped)[name]}")
    return column


# --- keep -------------------------------------------------------------------------------------------------------------


def save(folder: Path, data: TableData) -> None:
    """Write preprocessing and rows to the run folder."""
    arrays = {f"{name}.{what}": getattr(side, what) for name, side in data.sides.items() for what in ("x_NF", "y_N")}
    write_folder(
        folder / FOLDER,
        {
            "rows.safetensors": lambda path: save_file(arrays, path),
            "facts.json": write_json(asdict(data.facts)),
            "preprocessing.json": write_json(data.preprocessing.to_dict()),
        },
    )


def load(folder: Path, config: TrainConfig) -> TableData | None:  # noqa: ARG001  all kinds of task load alike
    """What `save` wrote; None if the run was killed before that. Raises CheckpointError if damaged."""
    if not (folder / FOLDER).is_dir():
        return None
    try:
        arrays = load_file(folder / FOLDER / "rows.safetensors")
        facts = read_json(folder / FOLDER / "facts.json")
        sides = {
            name: Side(arrays[f"{name}.x_NF"], arrays[f"{name}.y_N"]) for name in SIDES if f"{name}.x_NF" in arrays
        }
        return TableData(load_preprocessing(folder), sides, _facts(facts))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"the data of {folder} is damaged: {error}; start a new run") from None


def load_preprocessing(folder: Path) -> Preprocessing:
    """Of a run folder. Raises CheckpointError if it is damaged."""
    try:
        return Preprocessing.from_dict(read_json(folder / FOLDER / "preprocessing.json"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the preprocessing of {folder} is damaged: {error}; start a new run") from None


def _facts(saved: dict[str, Any]) -> TableFacts:
    pairs = tuple((name, reason) for name, reason in saved["left_out"])
    return TableFacts(**{**saved, "left_out": pairs, "remarks": tuple(saved["remarks"])})
