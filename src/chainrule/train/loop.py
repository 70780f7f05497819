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
from torch.amp import GradScaler
from torch.optim import Optimizer

from chainrule.data.order import samples
from chainrule.train.checkpoint import State, Trained, save_checkpoint
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Engine, Loss
from chainrule.train.evaluate import validation_loss
from chainrule.train.interrupt import Stop
from chainrule.train.journal import Keeper
from chainrule.train.moment import moment, unmoved
from chainrule.train.nonfinite import diagnosis, refusal, save_batches
from chainrule.train.optimizers import gradients
from chainrule.train.records import Evaluation, Listener, StepRecord
from chainrule.train.schedule import learning_rate
from chainrule.train.task import Task

RECENT = 20
SMALLEST_SCALE = 1.0
Watcher = Callable[[StepRecord, nn.Module, Sequence[Optimizer]], None]


@dataclass(frozen=True)
class Job:
    """What the loop works with; only the state, the weights, the optimizers and the scale change.

    loss       loss(model, batch) in the run's precision: what is validated
    objective  what is trained, mostly the same, with its penalties: what the preflight proves
    stepped    that compiled and scaled, as far as the run is: what a step differentiates
    facts      what a checkpoint says of its origin
    """

    config: TrainConfig
    task: Task
    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    scaler: GradScaler
    loss: Loss
    objective: Loss
    stepped: Loss
    engine: Engine
    device: torch.device
    folder: Path
    facts: dict[str, Any]

    @property
    def trained(self) -> Trained:
        """What a checkpoint keeps."""
        return Trained(self.model, self.optimizers, self.scaler)


# --- one step ---------------------------------------------------------------------------------------------------------


def train_step(job: Job, state: State) -> StepRecord:
    """Make update number `state.step`. Raises NonFiniteError before anything is updated."""
    start = time.perf_counter()
    rate = set_learning_rate(job, state)
    batches = list(micro_batches(job, state))
    counts = [job.task.count(batch) for batch in batches]

    loss, norm = gradient(job, state, batches, counts)
    clip_norm(job.model, norm, job.config.optimizer.clip_norm)
    for optimizer in job.optimizers:
        job.scaler.step(optimizer)
    job.scaler.update()

    state.step += 1
    state.samples += job.task.batch_size
    state.terms += sum(counts)
    state.recent = [*state.recent[1 - RECENT :], loss]
    return StepRecord(state.step, loss, rate, norm, sum(counts), time.perf_counter() - start)


def set_learning_rate(job: Job, state: State) -> float:
    """Give every optimizer the learning rate of this update."""
    config = job.config
    rate = learning_rate(state.step, config.steps, config.optimizer.learning_rate, config.schedule, state.reductions)
    for optimizer in job.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    return rate


def gradient(job: Job, state: State, batches: Sequence[Batch], counts: Sequence[int]) -> tuple[float, float]:
    """Leave the gradient of the mean loss in `.grad`; return that loss and the gradient's norm, both finite.

    A float16 gradient that overflows is computed again at half the scale, with the same batch, dropout masks and
    running statistics.
    """
    before = moment(job.model)
    while True:
        for optimizer in job.optimizers:
            optimizer.zero_grad(set_to_none=True)
        scale = job.scaler.get_scale()
        loss = accumulate(job.engine, job.model, job.stepped, batches, counts) / scale
        for optimizer in job.optimizers:
            job.scaler.unscale_(optimizer)
        clip_value(job.model, job.config.optimizer.clip_value)
        norm = float(torch.nn.utils.get_total_norm(gradients(job.model)))
        if math.isfinite(loss) and math.isfinite(norm):
            return loss, norm
        before.restore()
        if scale <= SMALLEST_SCALE:
            raise refuse(job, state, batches, loss, norm)
        job.scaler.update()


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
    torch._foreach_mul_(gradients(model), factor)


def clip_value(model: nn.Module, limit: float) -> None:
    """Cut every entry of the gradient off at ±limit; 0 = never. inf is left, to be told."""
    if limit > 0:
        for entries in gradients(model):
            torch.where(entries.isfinite(), entries.clamp(-limit, limit), entries, out=entries)


def clip_norm(model: nn.Module, norm: float, limit: float) -> None:
    """Scale the whole gradient down to `limit`, if its norm is larger; 0 = never."""
    if 0 < limit < norm:
        scale_gradients(model, limit / norm)


def refuse(job: Job, state: State, batches: Sequence[Batch], loss: float, norm: float) -> Exception:
    """Diagnose, keep batch and state for a replay, and return the error."""
    with unmoved(job.model):
        lines = diagnosis(job.model, job.loss, batches, step=state.step + 1, value=loss, norm=norm, recent=state.recent)
    kept = save_batches(job.folder, state.step + 1, batches)
    return refusal(lines, kept, checkpoint(job, state), job.optimizers[0].param_groups[0]["lr"])


# --- many steps -------------------------------------------------------------------------------------------------------


def train_loop(
    job: Job, state: State, journal: Keeper, listener: Listener, watchers: Sequence[Watcher], stop: Stop
) -> None:
    """Make updates until the last one, until patience ends or a stop is asked for, measuring and saving on the way."""
    job.model.train()
    listener.begin(state.step, job.config.steps, job.task.term)
    saved = -1
    try:
        while state.step < job.config.steps and not stop.requested and not out_of_patience(job, state):
            start = time.perf_counter()
            record = train_step(job, state)
            journal.step(record)
            listener.step(record)
            for watcher in watchers:
                watcher(record, job.model, job.optimizers)
            best = due(state.step, job.config.loop.evaluate_every) and evaluate(job, state, journal, listener)
            if due(state.step, job.config.sample.every):
                show(job, journal, listener)
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


def evaluate(job: Job, state: State, journal: Keeper, listener: Listener) -> bool:
    """Measure the validation loss on some examples; True if it is the best so far."""
    examples = min(job.task.measured, len(job.task.validation))
    loss = validation_loss(job.model, job.loss, job.task, job.device, examples)
    best = math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss)
    if best:
        state.best_loss, state.best_step = loss, state.step
    remember(state, best, job.config)
    baseline = job.task.baseline
    evaluation = Evaluation(state.step, loss, examples, best, (baseline.name, baseline.loss))
    journal.evaluation(evaluation)
    listener.evaluated(evaluation)
    return best


def show(job: Job, journal: Keeper, listener: Listener) -> None:
    """Tell what the model does so far, if its task has something to show."""
    if job.task.glimpse is not None:
        text = job.task.glimpse(job.model)
        journal.note("sample", text)
        listener.say("sample", text)


def remember(state: State, best: bool, config: TrainConfig) -> None:
    """Count the measurements without progress: for early stopping, and for a learning rate that falls on a plateau."""
    state.stale = 0 if best else state.stale + 1
    state.waited = 0 if best else state.waited + 1
    if config.schedule.name == "plateau" and state.waited >= config.schedule.plateau_patience:
        state.reductions += 1
        state.waited = 0


def out_of_patience(job: Job, state: State) -> bool:
    """Too many measurements in a row brought no better validation loss."""
    return 0 < job.config.loop.patience <= state.stale


def checkpoint(job: Job, state: State) -> Path:
    """Save all that the next step depends on."""
    return save_checkpoint(job.folder, job.trained, state, job.facts)
