"""The metrics of a run: one SQLite file (WAL), which others can read while training goes on.

steps(step, loss, learning_rate, gradient_norm, terms, seconds)    one row an update
evaluations(step, loss, examples)                                  one row a validation loss
events(time, kind, text)                                           started, resumed, interrupted, finished ...
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from chainrule.errors import CheckpointError
from chainrule.train.records import Evaluation, StepRecord

FILE = "metrics.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (step INTEGER PRIMARY KEY, loss REAL NOT NULL, learning_rate REAL NOT NULL,
    gradient_norm REAL, terms INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (step INTEGER PRIMARY KEY, loss REAL NOT NULL, examples INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS events (time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
"""


class Events:
    """The writer's end. Each row is committed at once: a killed run keeps what it had."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"{self._path} is no metrics file: {error}; move it away and resume again") from None

    def step(self, record: StepRecord) -> None:
        """Write one update."""
        row = (record.step, record.loss, record.learning_rate, record.gradient_norm, record.terms, record.seconds)
        self._write("INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)", row)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Write one validation loss."""
        row = (evaluation.step, evaluation.loss, evaluation.examples)
        self._write("INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)", row)

    def note(self, kind: str, text: str = "") -> None:
        """Write that something happened."""
        self._write("INSERT INTO events VALUES (?, ?, ?)", (time.time(), kind, text))

    def forget_after(self, step: int) -> None:
        """Delete what a killed run wrote after the checkpoint from which it is resumed."""
        self._write("DELETE FROM steps WHERE step > ?", (step,))
        self._write("DELETE FROM evaluations WHERE step > ?", (step,))

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        try:
            self._database.execute(statement, row)
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"{self._path} cannot be written: {error}; the checkpoints are untouched") from None

    def close(self) -> None:
        """Close the file; its WAL is merged."""
        self._database.close()


def connect(folder: Path) -> sqlite3.Connection:
    """The reader's end, which makes no file and writes no row. Raises CheckpointError if the run has no metrics."""
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: no update of this run was recorded")
    # With mode=ro the last reader of a finished run would leave the files of the WAL behind.
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
    database.execute("PRAGMA query_only=ON")
    return database


def read_steps(folder: Path) -> list[StepRecord]:
    """All updates of a run, also of one that is training now."""
    columns = "step, loss, learning_rate, gradient_norm, terms, seconds"
    return [StepRecord(*row) for row in _rows(folder, f"SELECT {columns} FROM steps ORDER BY step")]


def read_totals(folder: Path) -> tuple[int, float]:
    """(number of the last update, seconds of all updates) of a run."""
    ((last, seconds),) = _rows(folder, "SELECT COALESCE(MAX(step), 0), TOTAL(seconds) FROM steps")
    return last, seconds


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All validation losses of a run."""
    rows = _rows(folder, "SELECT step, loss, examples FROM evaluations ORDER BY step")
    return [Evaluation(*row) for row in rows]


def read_notes(folder: Path) -> list[tuple[str, str]]:
    """(kind, text) of all that happened in a run, oldest first."""
    return [(kind, text) for kind, text in _rows(folder, "SELECT kind, text FROM events ORDER BY rowid")]


def read_times(folder: Path) -> list[tuple[str, float]]:
    """(kind, seconds since 1970) of all that happened in a run, oldest first."""
    return [(kind, at) for kind, at in _rows(folder, "SELECT kind, time FROM events ORDER BY rowid")]


def _rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Raises CheckpointError if the file is damaged."""
    with closing(connect(folder)) as database:
        try:
            return database.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"{folder / FILE} cannot be read: {error}") from None
