"""What a run tells while it trains, as plain data, and who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class StepRecord:
    """One update.

    step           its number, counted from 1
    loss           mean over the terms of the batch, before the update
    learning_rate  of this update
    gradient_norm  Euclidean norm of the whole gradient, before clipping; None where no whole gradient is ever there
    terms          that the loss is the mean of: tokens, rows, pairs
    seconds        that it took
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float | None
    terms: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """One measurement of the validation loss.

    step      updates made before it
    loss      mean over the terms of the measured validation examples
    examples  that were measured: windows, rows, pairs
    best      it is the lowest of this run so far
    to_beat   name and loss of the baseline, on all validation examples; None if it is not known
    """

    step: int
    loss: float
    examples: int
    best: bool = False
    to_beat: tuple[str, float] | None = None


def plural(number: int, noun: str) -> str:
    """1 file, 2 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in decimal units: 1.5 kB, 3.0 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


class Report(Protocol):
    """What a preflight returns, as far as a run needs it."""

    @property
    def ok(self) -> bool:
        """No finding of severity "error"."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; "verdict" is in it."""


class Listener(Protocol):
    """Who shows a run's progress. All calls come from the training thread."""

    def say(self, label: str, text: str) -> None:
        """Show one line of facts, for instance ("data", "310 files, 5.5 MB")."""

    def phase(self, text: str) -> AbstractContextManager[object]:
        """Enclose work that takes seconds before or after the loop, for instance "learning the tokenizer"."""

    def reported(self, report: Report) -> None:
        """Show the preflight's report."""

    def begin(self, step: int, steps: int, term: str) -> None:
        """Hear that the loop starts after `step` of `steps` updates, and what a term of the loss is called."""

    def step(self, record: StepRecord) -> None:
        """Hear of one update."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Hear of a validation loss."""

    def stopping(self) -> None:
        """Hear that a stop was asked for; it comes after the step in progress, which may take long."""

    def end(self) -> None:
        """Hear that the loop is over, for whatever reason."""


class Silent:
    """A listener that shows nothing."""

    def say(self, label: str, text: str) -> None:
        """Ignore a fact."""

    def phase(self, text: str) -> AbstractContextManager[object]:  # noqa: ARG002
        """Show nothing while the work goes on."""
        return nullcontext()

    def reported(self, report: Report) -> None:
        """Ignore a report."""

    def begin(self, step: int, steps: int, term: str) -> None:
        """Ignore the beginning."""

    def step(self, record: StepRecord) -> None:
        """Ignore an update."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Ignore a validation loss."""

    def stopping(self) -> None:
        """Ignore that a stop was asked for."""

    def end(self) -> None:
        """Ignore the end."""
