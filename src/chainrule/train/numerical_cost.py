"""What an update by finite differences costs, said before training, and refused where it would not end.

    seconds of an update  =  parameters · 8 evaluations · forward passes of an update · seconds of one forward pass

An estimate: some entries take 16 evaluations, others run only what they influence. Ctrl-C waits for the update's end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from chainrule.errors import ConfigError
from chainrule.report.words import duration
from chainrule.train.checkpoint import State
from chainrule.train.config import TaskName
from chainrule.train.loop import Job, micro_batches
from chainrule.train.moment import unmoved
from chainrule.train.optimizers import count
from chainrule.train.records import Listener

EVALUATIONS = 8  # of an entry: differences of order 8
LONGEST_UPDATE = 300.0  # seconds
TIMED = 3
SMALLER: Mapping[TaskName, str] = MappingProxyType(
    {
        "text": "--model.hidden 8 --model.heads 1 --model.layers 1 --model.context 16 --data.tokenizer bytes",
        "table": "--mlp.hidden 8",
        "words": "--words.dimensions 4 --words.max-words 100 --words.batch-size 64",
    }
)


@dataclass(frozen=True)
class NumericalCost:
    """What one update by finite differences takes.

    parts    forward passes of an update: micro-batches
    forward  seconds of one
    """

    parameters: int
    parts: int
    forward: float

    @property
    def seconds(self) -> float:
        """Of an update."""
        return self.parameters * EVALUATIONS * self.parts * self.forward

    def __str__(self) -> str:
        parts = f" x {self.parts:,} micro-batches" if self.parts > 1 else ""
        return (
            f"{self.parameters:,} parameters x {EVALUATIONS} evaluations{parts} of {self.forward * 1e3:.3g} ms make about "
            f"{duration(self.seconds)} an update"
        )


def tell_cost(job: Job, listener: Listener) -> None:
    """Say what an update costs if its gradient is numerical. Raises ConfigError if that is longer than anyone waits."""
    if job.config.gradient != "numerical":
        return
    cost = numerical_cost(job)
    require_affordable(cost, job.config.task)
    listener.say("cost", f"{cost}; Ctrl-C takes effect after one")


def numerical_cost(job: Job) -> NumericalCost:
    """Measured on a forward pass of the job's first batch; model and random states stay as they were."""
    batches = list(micro_batches(job, State()))
    with unmoved(job.model), torch.no_grad():
        forward = min(_seconds(job, batches[0]) for _ in range(TIMED))
    return NumericalCost(count(job.model), len(batches), forward)


def _seconds(job: Job, batch: dict[str, torch.Tensor]) -> float:
    start = time.perf_counter()
    job.objective(job.model, batch).item()
    return time.perf_counter() - start


def require_affordable(cost: NumericalCost, task: TaskName) -> None:
    """Raise ConfigError if an update takes longer than anyone waits."""
    if cost.seconds > LONGEST_UPDATE:
        raise ConfigError(
            f"gradient is 'numerical': {cost}, and at most {duration(LONGEST_UPDATE)} are allowed, for Ctrl-C waits for its "
            f"end. Make the model tiny ({SMALLER[task]}), or take --gradient chain_rule"
        )
