"""An MLP on a table: a number, one of two classes or one of several from a row; the mean or the class shares are to be beaten.

N rows, B rows of a batch, O outputs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from chainrule.data.tables.answers import constant_output
from chainrule.data.tables.column import Floats, counted, quoted, shortened
from chainrule.data.tables.column import Kind as ColumnKind
from chainrule.data.tables.preprocess import Feature, Preprocessing
from chainrule.data.tables.target import Target
from chainrule.models.activations import ACTIVATIONS
from chainrule.models.initialisation import INITIALISERS
from chainrule.models.mlp import MLP, NORMS
from chainrule.train.chosen_loss import ChosenLoss, of_batch, tried
from chainrule.train.config import MLPConfig, TrainConfig
from chainrule.train.engine import Batch
from chainrule.train.records import Listener
from chainrule.train.task import Baseline, Kind, Task, batch_size_of
from chainrule.train.tasks.table_data import Rows, TableData, load, prepare, save
from chainrule.train.tasks.table_loss import arguments, loss_of
from chainrule.train.tasks.table_scores import concluding

MICRO_BATCH = 8192
MEASURED = 8192
LAST_LAYER = 0.1
SHOWN = 8  # columns of a kind
KINDS: Mapping[ColumnKind, str] = MappingProxyType(
    {"number": "numbers", "boolean": "true or false", "date": "dates", "category": "words"}
)
BASELINES = {"regression": "the training mean", "binary": "the class shares", "multi-class": "the class shares"}


def make(config: TrainConfig, data: TableData, listener: Listener) -> Task:
    """The task of predicting the target's column."""
    target = data.preprocessing.target
    chosen = loss_of(config, target, data.sides["training"].y_N)
    called_with = partial(arguments, goal=target.goal)
    describe(data, chosen.name, listener)
    dtype = dtype_of(config)
    rows = {side: Rows(data.sides[side], target, dtype) for side in data.sides}
    size = batch_size_of(config, len(rows["training"]), config.table.batch_size)
    standardised = target.goal == "regression" and not target.counts
    return Task(
        model=build_model(config, data.preprocessing),
        loss=of_batch(chosen.function, called_with),
        count=count_rows,
        training=rows["training"],
        validation=rows["validation"],
        baseline=baseline(chosen, data, listener),
        batch_size=size,
        micro_batch_size=size if config.mlp.norm == "batch" else min(size, MICRO_BATCH),
        measured=MEASURED,
        example="row",
        term="row",
        loss_unit=f"{chosen.name} of the standardised target" if standardised else chosen.name,
        description=description(config.mlp, data.preprocessing),
        conclude=concluding(data, dtype),
        facts=asdict(data.facts) | {side: len(rows[side]) for side in rows},
        origin=chosen.origin(),
        own_loss=chosen.examined(called_with),
    )


def dtype_of(config: TrainConfig) -> torch.dtype:
    """Of inputs and targets: that of the weights."""
    exact = config.precision == "float64" or (config.precision == "auto" and config.gradient == "numerical")
    return torch.float64 if exact else torch.float32


def count_rows(batch: Batch) -> int:
    """Rows that the mean is over."""
    return len(batch["targets"])


def build_model(config: TrainConfig, preprocessing: Preprocessing) -> MLP:
    """The MLP, its weights drawn by a generator of its own from the run's seed."""
    settings = config.mlp
    model = MLP(
        (preprocessing.width, *settings.hidden, preprocessing.target.outputs),
        ACTIVATIONS[settings.activation],
        norm=NORMS.get(settings.norm),
        dropout=settings.dropout,
    )
    initialise(model, settings, torch.Generator().manual_seed(config.seed))
    return model


@torch.no_grad()
def initialise(model: MLP, settings: MLPConfig, generator: torch.Generator) -> None:
    """Draw the weights; biases begin as 0. The last map is small, so that training begins near the baseline."""
    for layer in model.layers:
        assert isinstance(layer, nn.Linear)
        INITIALISERS[settings.initialisation](layer.weight, 1.0, generator)
        if layer.bias is not None:
            layer.bias.zero_()
    model.layers[-1].weight.mul_(LAST_LAYER)  # type: ignore[operator]  # a Linear's


def description(settings: MLPConfig, preprocessing: Preprocessing) -> str:
    """The network in words."""
    widths = " - ".join(map(str, (preprocessing.width, *settings.hidden, preprocessing.target.outputs)))
    norm = "" if settings.norm == "none" else f", {settings.norm} norm"
    dropout = f", dropout {settings.dropout:g}" if settings.dropout else ""
    return f"MLP {widths}, {settings.activation}{norm}{dropout}, {settings.initialisation} initialisation"


def baseline(chosen: ChosenLoss, data: TableData, listener: Listener) -> Baseline:
    """The loss of always answering alike: the training mean, or the shares of the classes."""
    target, validation = data.preprocessing.target, data.sides["validation"]
    constant_O = constant_output(data.sides["training"].y_N, target)
    loss = constant_loss(chosen, constant_O, Rows(validation, target, torch.float64))
    always = BASELINES[target.goal]
    listener.say("to beat", f"{always}, always: {chosen.name} {loss:.4f} on the validation rows")

    def compare(own: float) -> str:
        return (
            f"the model's loss is {abs(1 - own / loss):.0%} {'lower' if own < loss else 'higher'}"
            if loss
            else "it is 0"
        )

    return Baseline(f"{always}, always", loss, compare)


def constant_loss(chosen: ChosenLoss, constant_O: Floats, rows: Rows) -> float:
    """The loss of the same outputs for all rows."""
    targets_N = rows.batch(np.arange(len(rows)), torch.device("cpu"))["targets"]
    outputs_NO = torch.from_numpy(constant_O).expand(len(rows), -1)
    prediction = outputs_NO if rows.target.goal == "multi-class" else outputs_NO[:, 0].clone()
    return float(tried(chosen, prediction, targets_N))


def describe(data: TableData, loss: str, listener: Listener) -> None:
    """Say what was read, every choice with its reason."""
    facts, preprocessing = data.facts, data.preprocessing
    without = f", {facts.rows_without_target:,} of them without a target" if facts.rows_without_target else ""
    listener.say("data", f"{facts.source}: {counted(facts.rows, 'row')}{without}")
    for remark in facts.remarks:
        listener.say("", remark)
    for name, reason in facts.left_out:
        listener.say("left out", f"{name!r}: {reason}")
    columns = counted(len(preprocessing.features), "column")
    listener.say("inputs", f"{preprocessing.width:,} from {columns}; {by_kind(preprocessing.features)}")
    listener.say("target", f"{in_words(preprocessing.target, facts.goal)}; loss {loss}")
    counts = ", ".join(f"{len(side):,} {name}" for name, side in data.sides.items())
    listener.say("rows", f"{counts}; {facts.rule}")


def by_kind(features: Sequence[Feature]) -> str:
    """numbers: 'age' (2), 'size'; words: 'city' (5): a column of several inputs with their number."""
    parts = []
    for kind, plural in KINDS.items():
        named = [(feature.name, len(feature.inputs)) for feature in features if feature.kind == kind]
        shown = ", ".join(
            f"{shortened(name)!r}{f' ({inputs})' if inputs > 1 else ''}" for name, inputs in named[:SHOWN]
        )
        more = f" and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
        parts += [f"{plural}: {shown}{more}"] if named else []
    return "; ".join(parts)


def in_words(target: Target, reason: str) -> str:
    """'grade', binary (2 different words): 'bad', 'good', positive is 'good'."""
    positive = f", positive is {target.classes[1]!r}" if target.goal == "binary" else ""
    classes = f": {quoted(target.classes, 10)}{positive}" if target.classes else ""
    return f"{target.name!r}, {target.goal} ({reason}){classes}"


TABLE = Kind("table", prepare, save, load, make)
