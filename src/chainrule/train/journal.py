"""Where the metrics of a run go: each record is handed to everyone who keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from chainrule.errors import ChainruleError
from chainrule.train.events import Events
from chainrule.train.records import Evaluation, Listener, StepRecord
from chainrule.train.tensorboard import FOLDER, Board, Choice


class Keeper(Protocol):
    """Who keeps a run's metrics: the SQLite file, TensorBoard's event files."""

    def step(self, record: StepRecord) -> None:
        """Keep one update."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """Keep one validation loss."""

    def note(self, kind: str, text: str = "") -> None:
        """Keep that something happened."""

    def forget_after(self, step: int) -> None:
        """Drop what a killed run wrote after the checkpoint from which it is resumed."""

    def close(self) -> None:
        """Write the last of it."""


class Journal:
    """Several keepers as one."""

    def __init__(self, *keepers: Keeper) -> None:
        self._keepers = keepers

    def step(self, record: StepRecord) -> None:
        """Keep one update."""
        for keeper in self._keepers:
            keeper.step(record)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Keep one validation loss."""
        for keeper in self._keepers:
            keeper.evaluation(evaluation)

    def note(self, kind: str, text: str = "") -> None:
        """Keep that something happened."""
        for keeper in self._keepers:
            keeper.note(kind, text)

    def forget_after(self, step: int) -> None:
        """Drop what came after a step."""
        for keeper in self._keepers:
            keeper.forget_after(step)

    def close(self) -> None:
        """Write the last of it, also if one of them cannot."""
        with ExitStack() as closing:
            for keeper in self._keepers:
                closing.callback(keeper.close)


@contextmanager
def open_journal(folder: Path, board: Choice, listener: Listener) -> Iterator[Journal]:
    """The journal of a run, closed at the end; an error that ends the run is written down before it goes on."""
    if board.written:
        listener.say("tensorboard", f"{folder / FOLDER}: {board.reason}")
    journal = Journal(Events(folder), *([Board(folder)] if board.written else []))
    try:
        yield journal
    except ChainruleError as error:
        journal.note("failed", str(error))
        raise
    finally:
        journal.close()
