"""The public functions: each joins the rooms for one of the verbs; the rooms themselves do not know each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.autodiff import backward_source as backward_source
from chainrule.autodiff import compiled as compiled
from chainrule.autodiff import loss_of
from chainrule.autodiff import value_and_grad as value_and_grad
from chainrule.autodiff.given import evaluate_given
from chainrule.capture import capture as capture_as_written
from chainrule.capture import promote
from chainrule.capture.expand import expand
from chainrule.capture.preserve import preserved
from chainrule.checks.finite import check_finite
from chainrule.checks.own_loss.subject import LossSubject
from chainrule.checks.subject import Subject, first_batch
from chainrule.compare.entries import NumericalGradient, numerical_entries
from chainrule.engines import KNOWN, chain_rule_engine, numerical_engine
from chainrule.errors import ConfigError, SetupError
from chainrule.finding import Line
from chainrule.graph import Graph
from chainrule.preflight import known_checks, report_on, report_on_loss
from chainrule.report import Report
from chainrule.setups import Setup
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Engine, Loss, autograd
from chainrule.train.loop import Watcher
from chainrule.train.plan import Plan, plan_run
from chainrule.train.records import Listener
from chainrule.train.results import Results
from chainrule.train.run import OwnCall, run_training
from chainrule.train.run_folder import Run, new_run
from chainrule.train.tasks.table_predict import Predictions, predict_file
from chainrule.train.tasks.words import write_vectors
from chainrule.train.words.run import run_words

EXAMINED_ENTRIES = 2**16
LEAST_EXAMPLES = 4  # what loss-not-a-mean can divide
PREFLIGHT_TOKENS = 512  # enough for every formula and parameter to take part; proving costs some hundred forward passes


def check(
    setup: Setup,
    *,
    seed: int = 0,
    only: Collection[str] = (),
    command: str = "",
    announce: Callable[[str], None] = lambda _: None,
) -> Report:
    """Prove the gradients of a training set-up, before compute is spent; see docs/gradients.md for how a verdict is reached.

    seed     of the random directions and cotangents; the report prints it
    only     names of checks to run; if empty all of them but those that are dear (they compile or train)
    command  the command line that repeats this check, for the report
    announce called with the name of each stage before it runs, for a progress line

    Never changes the user's model, optimizer, batches or random state. Raises SetupError for a set-up that cannot be used
    (no trainable parameter, a loss that is no scalar, inf or nan in the input, labels out of range) and CaptureError if no
    graph can be made.
    """
    if not isinstance(setup, Setup):
        raise SetupError(
            f"check takes a chainrule.Setup, got {type(setup).__name__}; wrap model, loss and batches in one"
        )
    only = known_checks(only)
    with preserved(setup.model, setup.loss, *setup.optimizers, generators=(setup.batches,)):
        batch = first_batch(setup)
        graph = capture(setup.model, setup.loss, batch)
        values = evaluate_given(graph)
        check_finite(graph, loss_of(graph, values), values)
        subject = Subject(setup, batch, graph, seed, command)
        return report_on(subject, only, announce)


def check_loss(
    function: Callable[[Any, Any], Any],
    prediction: Tensor,
    target: Tensor,
    *,
    where: str = "",
    seed: int = 0,
    command: str = "",
) -> Report:
    """Examine a loss of your own before it trains anything: gradient, edges, scale, reduction.

    function    function(prediction, target) -> a tensor of one number
    prediction  (B, ...) as a model with its initial weights makes them
    target      (B, ...)
    where       what the report calls the function; its own name if empty

    Raises SetupError if the function raises for them or returns anything else.
    """
    code = getattr(function, "__code__", None)
    source = Line(code.co_filename, code.co_firstlineno) if code is not None else None
    where = where or getattr(function, "__name__", "loss")
    return report_on_loss(LossSubject(function, prediction.detach(), target, where, source, seed, command))


def capture(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph of unit formulas of loss(model, batch); an op that has no derivative rule is written out in smaller ones.

    Model, loss, batch and all generators are afterwards as they were. Raises SetupError and CaptureError as
    `capture.capturing.capture` does.
    """
    return expand(capture_as_written(model, loss, batch), KNOWN)


def numerical_gradient(
    graph: Graph,
    name: str,
    *,
    method: str = "order8",
    h: float | None = None,
    entries: Collection[tuple[int, ...]] | None = None,
) -> NumericalGradient:
    """dL/dW of one parameter by finite differences of the loss, entry by entry, in true float64, branches held.

    method   "forward": (L(W + hE) - L(W)) / h, the textbook's; "central"; "order8", with an error bar; "complex" step
    h        the step; None chooses it by the method and the tensor's size, and says why
    entries  indices to compute; all of them if None

    Returns `.gradient`, `.bar` (None for "forward"), `.h`, `.evaluations`, and for "forward" `.loss_plus`, `.loss_current`.
    Raises ConfigError for an unknown parameter or method, with the nearest name.
    """
    return numerical_entries(promote(graph, torch.float64), name, method=method, h=h, entries=entries)


def train(
    config: TrainConfig | Run | None = None, *, watchers: Sequence[Watcher] = (), listener: Listener | None = None
) -> Results:
    """Train what `config.task` names: preflight, training, a report in `runs/NAME/`.

    config    what to train, or a run to go on with (`chainrule.train.run_folder.open_run`); the default run if None
    watchers  called after each update as watcher(record, model, optimizers), while the gradients are still there;
              Word2Vec's kernel has neither model nor gradients, and calls none
    listener  who shows the progress; nobody if None

    Raises DataError, ConfigError, CheckpointError and NonFiniteError; see `train.run.run_training`.
    """
    run = config if isinstance(config, Run) else new_run(config or TrainConfig())
    if run.config.task == "words" and run.config.words.kernel:
        engines: dict[str, Engine] = {"autograd": autograd, "chain_rule": chain_rule_engine()}
        return run_words(run, engines=engines, listener=listener)
    engine = gradient_engine(run.config.gradient)
    results = run_training(run, engine=engine, preflight=preflight, watchers=watchers, listener=listener)
    if run.config.task == "words" and results.outcome == "finished":
        write_vectors(Path(results.folder), run.config)
    return results


def plan(config: TrainConfig | None = None, *, listener: Listener | None = None) -> Plan:
    """What a run would take, without training: parameters, memory, time; see `train.plan.plan_run`. Nothing is written."""
    config = config or TrainConfig()
    if config.task == "words" and config.words.kernel:
        raise ConfigError(
            "plan measures updates of the common loop; the kernel of task words makes none, and trains some hundred "
            "thousand words a second on each core. --words.no-kernel plans the plain module"
        )
    return plan_run(config, engine=gradient_engine(config.gradient), listener=listener)


def predict(run: str | Path, file: str | Path) -> Predictions:
    """Answers for the rows of a CSV or Parquet file by a run of task table; see `train.tasks.table_predict.predict_file`."""
    return predict_file(Path(run), Path(file))


def gradient_engine(name: str) -> Engine:
    """The engine that `gradient = ...` names. Raises ConfigError for any other name."""
    if name == "chain_rule":
        return chain_rule_engine()
    if name == "numerical":
        return numerical_engine()
    if name != "autograd":
        raise ConfigError(f"gradient = {name!r}; expected autograd, chain_rule or numerical")
    return autograd


def preflight(
    model: nn.Module, loss: Loss, batches: Iterable[Batch], optimizers: Sequence[Optimizer], /, *own: OwnCall
) -> Report:
    """`check` on as many windows of the first batches as hold 512 tokens; before it `check_loss` on a loss of your own."""
    of_losses = [check_loss(one.function, *_first(one.prediction, one.target), where=one.name) for one in own]
    if not all(report.ok for report in of_losses):
        return of_losses[0]  # a whole check of a model with a broken loss would only repeat it
    report = check(Setup(model, loss, [_few(batch) for batch in batches], optimizers))
    return replace(
        report,
        stages=(*(stage for one in of_losses for stage in one.stages), *report.stages),
        findings=(*(finding for one in of_losses for finding in one.findings), *report.findings),
    )


def _first(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first examples, as many as have 65,536 numbers predicted together: differences evaluate the loss 1,600 times."""
    examples = max(LEAST_EXAMPLES, EXAMINED_ENTRIES * len(prediction) // max(1, prediction.numel()))
    return prediction[:examples], target[:examples]


def _few(batch: Batch) -> dict[str, Any]:
    """As many examples of a batch as hold 512 tokens; a row of numbers counts as one."""
    first = next(iter(batch.values()))
    tokens = 1 if first.is_floating_point() else first.shape[-1]
    return {name: tensor[: max(1, PREFLIGHT_TOKENS // tokens)] for name, tensor in batch.items()}
