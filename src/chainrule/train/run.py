"""A whole run, new or resumed: data, model, preflight, loop, results. Engine, preflight and watchers are handed in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.errors import CheckpointError
from chainrule.train.begin import accepted, first_state
from chainrule.train.build import build_job
from chainrule.train.checkpoint import (
    State,
    best_checkpoint,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    read_state,
    step_of,
)
from chainrule.train.engine import Batch, Engine, Loss, autograd
from chainrule.train.finish import Session, finish
from chainrule.train.health import Health
from chainrule.train.interrupt import stop_on_signals
from chainrule.train.journal import Keeper, open_journal
from chainrule.train.loop import Job, Watcher, micro_batches, out_of_patience, train_loop
from chainrule.train.numerical_cost import tell_cost
from chainrule.train.randomness import determinism, preserved_randomness, seed_everything
from chainrule.train.records import Listener, Report, Silent
from chainrule.train.results import Outcome, Results
from chainrule.train.run_folder import Run, make_folder, removed_if_refused, sole_trainer, write_config
from chainrule.train.task import Kind, Task
from chainrule.train.tasks import KINDS
from chainrule.train.tensorboard import choose

PREFLIGHT_BATCHES = 2


@dataclass(frozen=True)
class OwnCall:
    """A loss of the user's own with what the untrained model calls it with, for the preflight to examine."""

    name: str
    function: Callable[[Any, Any], Any]
    prediction: Tensor
    target: Tensor


class Preflight(Protocol):
    """Who looks at a run before its first update; the fifth argument is only there if the loss is the user's own."""

    def __call__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Sequence[Batch],
        optimizers: Sequence[Optimizer],
        /,
        *own: OwnCall,
    ) -> Report | None:
        """The report; None if there is nothing to say."""


def run_training(
    run: Run,
    *,
    engine: Engine = autograd,
    preflight: Preflight | None = None,
    watchers: Sequence[Watcher] = (),
    listener: Listener | None = None,
) -> Results:
    """Train to the end, to Ctrl-C or SIGTERM, or until the preflight says no. The caller's random states are kept.

    Raises DataError, ConfigError, CheckpointError, NonFiniteError; KeyboardInterrupt, with the way to go on as its
    message, if interrupted outside the loop or twice within a step.
    """
    listener, start = listener or Silent(), time.perf_counter()
    board = choose(run.config.loop.tensorboard)
    kind = KINDS[run.config.task]
    data = kind.load(run.folder, run.config) if run.folder else None
    prepared = kind.prepare(run.config, listener) if data is None else None
    folder = run.folder or make_folder(run, kind.prefix)
    try:
        exact = determinism(run.config.loop.deterministic)
        with preserved_randomness(), removed_if_refused(run, folder), sole_trainer(folder), exact:
            if prepared is not None:
                kind.save(folder, prepared)
                data = kind.load(folder, run.config)  # a new run reads what a resumed one will
            with open_journal(folder, board, listener) as journal:
                session = _begin(run, folder, kind, data, engine, listener, start)
                return _train(session, run.checkpoint, journal, preflight, watchers)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(folder)) from None


def how_to_go_on(folder: Path) -> str:
    """What an interrupted run has kept, and the command that resumes it."""
    newest = newest_checkpoint(folder)
    kept = f"step {step_of(newest)} is saved" if newest else "no step is saved yet"
    return f"interrupted: {kept}; go on with: chainrule train --resume {folder}"


def _begin(run: Run, folder: Path, kind: Kind, data: Any, engine: Engine, listener: Listener, start: float) -> Session:
    """Make all that the loop needs, and write down the settings with their automatic choices."""
    seed_everything(run.config.seed)
    if run.checkpoint is None:
        write_config(folder, run.config, run.remarks)
    saved = read_state(run.checkpoint) if run.checkpoint else None
    if saved is not None:
        _use_threads(saved["threads"], listener)
    task = kind.make(run.config, data, listener)
    if saved is not None:
        _require_same_origin(task, saved, folder)
    job, reasons = build_job(run.config, folder, task, engine, listener)
    tell_cost(job, listener)
    if run.checkpoint is None:
        write_config(folder, job.config, {**run.remarks, **reasons})
    return Session(job, reasons, listener, start, step_of(run.checkpoint) if run.checkpoint else 0)


def _train(
    session: Session,
    checkpoint: Path | None,
    journal: Keeper,
    preflight: Preflight | None,
    watchers: Sequence[Watcher],
) -> Results:
    job, listener = session.job, session.listener
    load = partial(load_checkpoint, trained=job.trained)
    state = first_state(job.folder, checkpoint, State(), load, journal, listener)
    if checkpoint is None and not _passes(job, preflight, listener):
        journal.note("refused", "preflight")
        return finish(session, state, "refused by preflight")
    with stop_on_signals(listener.stopping) as stop:
        health = Health(partial(_tell, journal, listener))
        train_loop(job, state, journal, listener, (*watchers, health), stop)
    outcome = _outcome(job, state)
    if outcome == "stopped early":
        load_weights(best_checkpoint(job.folder, state), job.model)
    results = finish(session, state, outcome)
    journal.note(outcome, f"step {state.step}")
    return results


def _tell(journal: Keeper, listener: Listener, text: str) -> None:
    """Show a symptom while training goes on, and keep it."""
    listener.say("watch", text)
    journal.note("watch", text)


def _outcome(job: Job, state: State) -> Outcome:
    if out_of_patience(job, state):
        return "stopped early"
    return "finished" if state.step >= job.config.steps else "interrupted"


def _require_same_origin(task: Task, saved: Mapping[str, Any], folder: Path) -> None:
    """Raise CheckpointError if something besides the settings, such as the file of the user's loss, is not as it was."""
    for name, now in task.origin.items():
        before = saved.get(name, now)
        if before != now:
            raise CheckpointError(
                f"the {name.replace('_', ' ')} of {folder} was changed after its checkpoint was made (sha256 {before[:8]}, now "
                f"{now[:8]}). A resumed run goes on exactly as it began; undo the change, or start a new run"
            )


def _use_threads(threads: int, listener: Listener) -> None:
    """Sums are rounded differently by another number of threads: a resumed run takes the number it began with."""
    if torch.get_num_threads() != threads:
        listener.say("threads", f"{threads}, as the run began, instead of {torch.get_num_threads()}")
        torch.set_num_threads(threads)


def _passes(job: Job, preflight: Preflight | None, listener: Listener) -> bool:
    """Run the preflight on the first batches; True if there is none, or if it finds no error."""
    if preflight is None or not job.config.loop.preflight:
        return True
    positions = (State(samples=number * job.task.batch_size) for number in range(PREFLIGHT_BATCHES))
    batches = [next(micro_batches(job, position)) for position in positions]
    job.model.train()
    with preserved_randomness(), listener.phase("preflight: proving the gradients of this model"):
        report = preflight(job.model, job.objective, batches, job.optimizers, *_own_call(job, batches[0]))
    return report is None or accepted(report, job.folder, listener)


def _own_call(job: Job, batch: Batch) -> tuple[OwnCall, ...]:
    """The user's own loss with the untrained model's predictions of a batch, if the loss is one; no statistics move."""
    own = job.task.own_loss
    if own is None:
        return ()
    job.model.eval()
    with torch.no_grad():
        prediction, target = own.arguments(job.model, batch)
    job.model.train()
    return (OwnCall(own.name, own.function, prediction, target),)
