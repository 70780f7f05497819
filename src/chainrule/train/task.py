"""What a run trains: model, loss, examples, the baseline to beat, and what is said of the trained model.

The loop, the checkpoints and the resumption are the same for every task; each file in `tasks/` makes one kind of task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Loss
from chainrule.train.records import Listener


class Examples(Protocol):
    """Training or validation examples: windows of text, rows of a table, pairs of words."""

    def __len__(self) -> int:
        """How many."""

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Batch:
        """Those of these indices, as named tensors."""


@dataclass(frozen=True)
class Baseline:
    """What a model must beat.

    name     "bigram model"
    loss     its loss on the validation examples
    compare  what a model of this validation loss is worth beside it, in words
    """

    name: str
    loss: float
    compare: Callable[[float], str]


@dataclass(frozen=True)
class Conclusion:
    """What a task says of the trained model.

    metrics  numbers by name, for report.json and for programs
    lines    (label, text) of the short table
    prompt, text  a sample that is shown below the table; prompt is what was given
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    text: str = ""


@dataclass(frozen=True)
class OwnLoss:
    """A loss function from the user's own file, and what the task calls it with.

    name       "my_losses.py:focal"
    arguments  arguments(model, batch) -> (prediction, target)
    """

    name: str
    function: Callable[[Any, Any], Any]
    arguments: Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Task:
    """One thing to train; the model has its initial weights, on the CPU, in float32.

    loss        loss(model, batch), which is trained: the mean over `count(batch)` terms
    count       terms that the mean is over: tokens, rows, pairs
    batch_size  examples in one update
    micro_batch_size  examples in one forward pass; 0 = as many as the free memory holds
    measured    validation examples that are measured on the way, evenly spread
    example, term     what they are called: "window", "token"
    loss_unit   "nats per token": of the validation loss and the baseline
    validated   loss(model, batch) that validation and baseline are measured by; None if it is `loss`
    trained_unit  of `loss`, if another one is validated
    description of the model, without its number of parameters
    conclude    conclude(trained model, its validation loss)
    facts       of the data, JSON-able, for the report
    origin      what a checkpoint must say of the data: a tokenizer's fingerprint
    own_loss    the user's own function behind `loss`, which the preflight examines; None if it is one of ours
    """

    model: nn.Module
    loss: Loss
    count: Callable[[Batch], int]
    training: Examples
    validation: Examples
    baseline: Baseline
    batch_size: int
    micro_batch_size: int
    measured: int
    example: str
    term: str
    loss_unit: str
    description: str
    conclude: Callable[[nn.Module, float], Conclusion]
    facts: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    validated: Loss | None = None
    trained_unit: str = ""
    own_loss: OwnLoss | None = None
    glimpse: Callable[[nn.Module], str] | None = None


def batch_size_of(config: TrainConfig, examples: int, mini_batch: int) -> int:
    """Examples in one update, by the method: all of them, one, or a mini-batch."""
    return {"full-batch": examples, "stochastic": 1, "mini-batch": mini_batch}[config.method]


@dataclass(frozen=True)
class Kind:
    """How one kind of task is made. `data` is what `prepare` returns, of a type of the kind's own.

    prefix   of the names of run folders
    prepare  prepare(config, listener): read, split, encode. Raises DataError
    save     save(folder, data): so that a resumed run has the same
    load     load(folder, config): what `save` wrote; None if the run was killed before. Raises CheckpointError
    make     make(config, data, listener): the task; says what was read and what is to beat
    """

    prefix: str
    prepare: Callable[[TrainConfig, Listener], Any]
    save: Callable[[Path, Any], None]
    load: Callable[[Path, TrainConfig], Any | None]
    make: Callable[[TrainConfig, Any, Listener], Task]
