"""TensorBoard's event files beside the SQLite file, where tensorboard, the extra `[tensorboard]`, is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from chainrule.errors import ConfigError
from chainrule.train.records import Evaluation, StepRecord

FOLDER = "tensorboard"
FLUSH_SECONDS = 10  # what a killed run may lose; the SQLite file loses nothing
PAUSE = (
    0.1  # seconds of training between two steps that are written: a record costs 0.3 ms, more than a small model's step
)
INSTALL = "pip install 'chainrule[tensorboard]'"


class Choice(NamedTuple):
    """Whether event files are written, and why."""

    written: bool
    reason: str


def choose(wanted: Literal["auto", "on", "off"]) -> Choice:
    """Write event files if they are wanted, or if nothing was said and tensorboard is there.

    Raises ConfigError if they are wanted and tensorboard is not installed.
    """
    installed = find_spec("tensorboard") is not None
    if wanted == "off":
        return Choice(False, "off, as asked")
    if wanted == "on" and not installed:
        raise ConfigError(f"loop.tensorboard is 'on', but tensorboard is not installed: {INSTALL}")
    if not installed:
        return Choice(False, f"off: not installed ({INSTALL})")
    return Choice(True, "as asked" if wanted == "on" else "it is installed; --loop.tensorboard off leaves it out")


class Board:
    """The writer's end. The file is opened with the first record, for its thread is not to be there when a copy is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._first = 0
        self._writer: Any = None
        self._waited = PAUSE
        self._skipped: StepRecord | None = None

    def step(self, record: StepRecord) -> None:
        """Write an update, unless the last one that was written is less than PAUSE seconds of training ago."""
        self._waited += record.seconds
        self._skipped = record
        if self._waited >= PAUSE:
            self._write(record)

    def _write(self, record: StepRecord) -> None:
        """Write loss, learning rate, gradient norm and speed of one update."""
        self._waited, self._skipped = 0.0, None
        figures = {
            "loss/training": record.loss,
            "learning_rate": record.learning_rate,
            "gradient_norm": record.gradient_norm,
            "terms_per_second": record.terms / record.seconds if record.seconds else 0.0,
        }
        for name, figure in figures.items():
            if figure is not None:  # Word2Vec's kernel knows no norm of its gradient
                self._open().add_scalar(name, figure, record.step)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Write one validation loss."""
        self._open().add_scalar("loss/validation", evaluation.loss, evaluation.step)

    def note(self, kind: str, text: str = "") -> None:
        """Leave notes to the SQLite file."""

    def forget_after(self, step: int) -> None:
        """Tell TensorBoard to hide what an earlier session wrote after this step."""
        self._first = step + 1

    def close(self) -> None:
        """Write what is held back: the last update, too."""
        if self._skipped is not None:
            self._write(self._skipped)
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> Any:
        if self._writer is None:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
            self._writer = writer(str(self._folder), purge_step=self._first or None, flush_secs=FLUSH_SECONDS)
        return self._writer
