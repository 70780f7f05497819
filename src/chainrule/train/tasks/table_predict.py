"""Answers of a trained run for the rows of another file; its scores, if the file has the target's column, too.

R rows, K classes
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from chainrule.data.tables.answers import scores_of
from chainrule.data.tables.apply import inputs_of
from chainrule.data.tables.column import Floats, Table
from chainrule.data.tables.preprocess import Preprocessing
from chainrule.data.tables.target import Target, values_of
from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.checkpoint import State, best_checkpoint, load_weights, newest_checkpoint, read_state
from chainrule.train.config import TrainConfig
from chainrule.train.run_folder import open_run
from chainrule.train.tasks.table import build_model, dtype_of
from chainrule.train.tasks.table_data import Rows, Side, load_preprocessing, read_as
from chainrule.train.tasks.table_scores import predict


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers for each row, in the order of the file.

    answers     (R,) numbers, or (R, K) probabilities of the classes
    checkpoint  whose weights were used
    scores      on the rows that have a known target; empty if there are none
    scored      how many those are
    remarks     on cells that training has not seen the like of
    """

    target: Target
    answers: Floats
    checkpoint: Path
    scores: Mapping[str, float]
    scored: int
    remarks: tuple[str, ...]

    def to_csv(self) -> str:
        """A column `prediction`, and for classes a column with the probability of each."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        classes = self.target.classes
        writer.writerow(["prediction", *(f"probability of {name}" for name in classes)])
        if not classes:
            writer.writerows([value] for value in self.answers.tolist())
            return file.getvalue()
        for row_K, place in zip(self.answers.tolist(), self.answers.argmax(axis=1).tolist(), strict=True):
            writer.writerow([classes[place], *row_K])
        return file.getvalue()


def predict_file(run: Path, file: Path) -> Predictions:
    """Answers for the rows of a CSV or Parquet file, on the CPU. The columns are found by name; the target may be missing.

    `run` is the folder of a run, or one of its checkpoints. Raises ConfigError if the run is not of task table,
    CheckpointError if it has no weights yet, and DataError if the file lacks a column or cannot be read.
    """
    opened = open_run(run)
    folder = opened.folder
    assert folder is not None
    if opened.config.task != "table":
        raise ConfigError(f"{run} was trained on {opened.config.task}; chainrule predict takes a run of task table")
    checkpoint = opened.checkpoint if run.parent.name == "checkpoints" else chosen_checkpoint(folder, opened.config)
    if checkpoint is None:
        raise CheckpointError(f"{folder} has no checkpoint yet: nothing is trained")
    preprocessing = load_preprocessing(folder)
    model = build_model(opened.config, preprocessing)
    load_weights(checkpoint, model)
    table = read_as(file, opened.config.table, preprocessing.kinds)
    return _predictions(model, table, preprocessing, checkpoint, opened.config)


def chosen_checkpoint(folder: Path, config: TrainConfig) -> Path | None:
    """That of the report: the best weights if the run stopped early, else the last ones. None if there is none."""
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    state = State(**read_state(newest)["state"])
    return best_checkpoint(folder, state) if 0 < config.loop.patience <= state.stale else newest


def _predictions(
    model: nn.Module, table: Table, preprocessing: Preprocessing, checkpoint: Path, config: TrainConfig
) -> Predictions:
    x_RF, unseen = inputs_of(table, preprocessing)
    target = preprocessing.target
    dtype = dtype_of(config)
    found = predict(model.to(dtype), Rows(Side(x_RF, np.zeros(table.rows)), target, dtype))
    column = table.find(target.name)
    y_R = values_of(column, target) if column else np.full(table.rows, np.nan)
    known_R = ~np.isnan(y_R)
    scores = scores_of(y_R[known_R], found[known_R], target) if known_R.any() else {}
    return Predictions(target, found, checkpoint, scores, int(known_R.sum()), (*table.remarks, *unseen))
