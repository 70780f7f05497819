"""The training loop. One step: forward, loss, gradient, finite?, clip, update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from chainrule.data.order import samples
from chainrule.train.checkpoint import State, save_checkpoint
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Engine, Loss
from chainrule.train.evaluate import validation_loss
from chainrule.train.events import Events
from chainrule.train.interrupt import Stop
from chainrule.train.nonfinite import diagnosis, refusal, save_batches
from chainrule.train.optimizers import gradients
from chainrule.train.randomness import random_state, restore_random_state
from chainrule.train.records import Evaluation, Listener, StepRecord
from chainrule.train.schedule import learning_rate
from chainrule.train.task import Task

RECENT = 20
Watcher = Callable[[StepRecord, nn.Module, Optimizer], None]


@dataclass(frozen=True)
class Job:
    """What the loop works with; only the state, the weights and the optimizer change."""

    config: TrainConfig
    task: Task
    model: nn.Module
    optimizer: Optimizer
    loss: Loss
    engine: Engine
    device: torch.device
    folder: Path
    facts: dict[str, Any]


# --- one step ---------------------------------------------------------------------------------------------------------


def train_step(job: Job, state: State) -> StepRecord:
    """Make update number `state.step`. Raises NonFiniteError before anything is updated."""
    start = time.perf_counter()
    before = random_state()
    rate = learning_rate(state.step, job.config.steps, job.config.optimizer.learning_rate, job.config.schedule)
    for group in job.optimizer.param_groups:
        group["lr"] = rate

    batches = list(micro_batches(job, state))
    job.optimizer.zero_grad(set_to_none=True)
    counts = [job.task.count(batch) for batch in batches]
    loss = accumulate(job.engine, job.model, job.loss, batches, counts)
    norm = float(torch.nn.utils.get_total_norm(gradients(job.model)))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        restore_random_state(before)
        raise refuse(job, state, batches, loss, norm, rate)
    clip(job.model, norm, job.config.optimizer.clip_norm)
    job.optimizer.step()

    state.step += 1
    state.samples += job.task.batch_size
    state.terms += sum(counts)
    state.recent = [*state.recent[1 - RECENT :], loss]
    return StepRecord(state.step, loss, rate, norm, sum(counts), time.perf_counter() - start)


def micro_batches(job: Job, state: State) -> Iterator[Batch]:
    """The examples of this update, in parts that fit one forward pass."""
    task = job.task
    indices = samples(state.samples, task.batch_size, len(task.training), job.config.seed)
    for start in range(0, len(indices), task.micro_batch_size):
        yield task.training.batch(indices[start : start + task.micro_batch_size], job.device)


def accumulate(engine: Engine, model: nn.Module, loss: Loss, batches: Sequence[Batch], counts: Sequence[int]) -> float:
    """Leave in `.grad` the gradient of the mean loss over all terms of all batches, and return that mean.

    The engine adds the gradient of each batch's own mean. With n_i terms in batch i the sum is kept in units of the
    batch at hand, so that batches of unequal size weigh by their terms:  G_i = G_(i-1) n_(i-1) / n_i + g_i. A batch
    without a term (all its targets are ignored) has no mean and is left out.
    """
    parts = [(batch, n) for batch, n in zip(batches, counts, strict=True) if n]
    total, before = 0.0, 0
    for batch, n in parts:
        if before not in (0, n):
            scale_gradients(model, before / n)
        total += float(engine(model, loss, batch)) * n
        before = n
    if len(parts) > 1:
        scale_gradients(model, before / sum(counts))
    return total / max(1, sum(counts))


def scale_gradients(model: nn.Module, factor: float) -> None:
    """Multiply every gradient in place."""
    for gradient in gradients(model):
        gradient.mul_(factor)


def clip(model: nn.Module, norm: float, limit: float) -> None:
    """Scale the whole gradient down to `limit`, if its norm is larger; 0 = never."""
    if 0 < limit < norm:
        scale_gradients(model, limit / norm)


def refuse(job: Job, state: State, batches: Sequence[Batch], loss: float, norm: float, rate: float) -> Exception:
    """Diagnose, keep batch and state for a replay, and return the error."""
    before = random_state()
    lines = diagnosis(job.model, job.loss, batches, step=state.step + 1, value=loss, norm=norm, recent=state.recent)
    restore_random_state(before)
    kept = save_batches(job.folder, state.step + 1, batches)
    return refusal(lines, kept, checkpoint(job, state), rate)


# --- many steps -------------------------------------------------------------------------------------------------------


def train_loop(
    job: Job, state: State, events: Events, listener: Listener, watchers: Sequence[Watcher], stop: Stop
) -> None:
    """Make updates until the last one or until a stop is asked for, measuring and saving on the way."""
    job.model.train()
    listener.begin(state.step, job.config.steps, job.task.term)
    saved = -1
    try:
        while state.step < job.config.steps and not stop.requested:
            start = time.perf_counter()
            record = train_step(job, state)
            events.step(record)
            listener.step(record)
            for watcher in watchers:
                watcher(record, job.model, job.optimizer)
            best = due(state.step, job.config.loop.evaluate_every) and evaluate(job, state, events, listener)
            state.seconds += time.perf_counter() - start
            if best or due(state.step, job.config.loop.checkpoint_every):
                checkpoint(job, state)
                saved = state.step
        if saved != state.step:
            checkpoint(job, state)
    finally:
        listener.end()


def due(step: int, every: int) -> bool:
    """True at multiples of `every`; 0 = never."""
    return every > 0 and step % every == 0


def evaluate(job: Job, state: State, events: Events, listener: Listener) -> bool:
    """Measure the validation loss on some examples; True if it is the best so far."""
    examples = min(job.config.loop.evaluate_windows, len(job.task.validation))
    loss = validation_loss(job.model, job.loss, job.task, job.device, examples)
    best = math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss)
    if best:
        state.best_loss, state.best_step = loss, state.step
    baseline = job.task.baseline
    evaluation = Evaluation(state.step, loss, examples, best, (baseline.name, baseline.loss))
    events.evaluation(evaluation)
    listener.evaluated(evaluation)
    return best


def checkpoint(job: Job, state: State) -> Path:
    """Save all that the next step depends on."""
    return save_checkpoint(job.folder, job.model, job.optimizer, state, job.facts)
