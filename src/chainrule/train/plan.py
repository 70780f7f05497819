"""What a run would take, without training: parameters, memory, time; measured on one update of a model that is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chainrule.train.build import build_job
from chainrule.train.checkpoint import State
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Engine, autograd
from chainrule.train.evaluate import validation_batches
from chainrule.train.loop import Job, due, micro_batches, train_step
from chainrule.train.memory import kept_for_backward
from chainrule.train.numerical_cost import tell_cost
from chainrule.train.optimizers import count, gradients
from chainrule.train.randomness import preserved_randomness, seed_everything
from chainrule.train.records import Listener, Silent, size
from chainrule.train.run_folder import settled
from chainrule.train.tasks import KINDS

TIMED = 3


@dataclass(frozen=True)
class Plan:
    """What a run would take; bytes and seconds.

    weights, gradients, states   of parameters and buffers, of their gradients, of the optimizer's memory
    activations  what one micro-batch keeps for its backward pass
    step         one update, the fastest of three after a first one
    validation   one measurement on the way
    terms        tokens, rows, pairs in the whole run
    """

    parameters: int
    weights: int
    gradients: int
    states: int
    activations: int
    step: float
    validation: float
    steps: int
    measurements: int
    terms: int
    term: str

    @property
    def memory(self) -> int:
        """At the end of a forward pass, when most is held at once, besides Python and torch themselves."""
        return self.weights + self.gradients + self.states + self.activations

    @property
    def seconds(self) -> float:
        """All updates and measurements; reading the data and the preflight come before them."""
        return self.steps * self.step + self.measurements * self.validation

    def lines(self) -> list[tuple[str, str]]:
        """(label, text) of the table."""
        return [
            ("parameters", f"{self.parameters:,}"),
            (
                "memory",
                f"{size(self.memory)}: weights {size(self.weights)}, gradients {size(self.gradients)}, optimizer "
                f"{size(self.states)}, activations of one micro-batch {size(self.activations)}",
            ),
            ("a step", f"{self.step * 1e3:,.1f} ms, {self.terms / self.steps / self.step:,.0f} {self.term}s/s"),
            (
                "time",
                f"about {self.seconds:,.0f} s: {self.steps:,} steps, {self.measurements:,} measurements of "
                f"{self.validation:.2g} s; {self.terms:,} {self.term}s in all",
            ),
        ]


def plan_run(config: TrainConfig, *, engine: Engine = autograd, listener: Listener | None = None) -> Plan:
    """Read the data, make the model and measure some updates; nothing is written.

    Raises DataError and ConfigError as the run would.
    """
    listener, kind = listener or Silent(), KINDS[config.task]
    config = settled(config)
    with preserved_randomness():
        data = kind.prepare(config, listener)
        seed_everything(config.seed)
        task = kind.make(config, data, listener)
        job, _ = build_job(config, Path(config.runs_folder), task, engine, listener)
        tell_cost(job, listener)
        with listener.phase("measuring an update"):
            return measured(job)


def measured(job: Job) -> Plan:
    """Make some updates and one measurement with the job's own model."""
    job.model.train()
    activations = _activations(job)
    state = State()
    records = [train_step(job, state) for _ in range(1 + TIMED)]
    steps, every = job.config.steps, job.config.loop.evaluate_every
    return Plan(
        parameters=count(job.model),
        weights=_bytes([*job.model.parameters(), *job.model.buffers()]),
        gradients=_bytes(gradients(job.model)),
        states=_bytes(
            value
            for o in job.optimizers
            for entry in o.state.values()
            for value in entry.values()
            if torch.is_tensor(value)
        ),
        activations=activations,
        step=min(record.seconds for record in records[1:]),
        validation=_validation_seconds(job) if every else 0.0,
        steps=steps,
        measurements=sum(due(step, every) for step in range(1, steps + 1)),
        terms=steps * records[-1].terms,
        term=job.task.term,
    )


def _activations(job: Job) -> int:
    """Bytes that the forward pass of one micro-batch keeps for its backward pass, besides the weights."""
    with preserved_randomness():
        batch = next(micro_batches(job, State()))
        return kept_for_backward(job.model, lambda: job.objective(job.model, batch))


def _validation_seconds(job: Job) -> float:
    start = time.perf_counter()
    job.model.eval()
    examples = min(job.task.measured, len(job.task.validation))
    with torch.no_grad():
        for batch in validation_batches(job.task, job.device, examples):
            job.loss(job.model, batch)
    job.model.train()
    return time.perf_counter() - start


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of different storages: a tied weight counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
