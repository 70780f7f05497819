"""What the folders of runs say, read without torch: of finished runs, of interrupted and killed ones, of those that train now."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.atomic import read_json
from chainrule.train.events import FILE, read_evaluations, read_steps, read_times, read_totals
from chainrule.train.records import Evaluation, StepRecord
from chainrule.train.settings import read_settings

if sys.platform != "win32":
    import fcntl

CONFIG, REPORT, LOCK = "config.toml", "report.json", ".lock"
ENDINGS = ("finished", "stopped early", "interrupted", "refused", "refused by preflight", "failed")


@dataclass(frozen=True)
class PastRun:
    """A run folder's content.

    status    "running", "killed" (it ended without a word), or the outcome that it wrote down
    settings  of config.toml by "section.field"
    done      number of the last update
    seconds   of all updates
    started   seconds since 1970, of its first session; when its settings were written, if it noted no start
    report    of report.json; {} if there is none yet
    """

    folder: Path
    status: str
    settings: Mapping[str, Any]
    done: int = 0
    seconds: float = 0.0
    evaluations: tuple[Evaluation, ...] = ()
    started: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.folder.name

    @property
    def task(self) -> str:
        """Text, table, words; "?" if the settings cannot be read."""
        return str(self.settings.get("task", "text")) if self.settings else "?"

    @cached_property
    def steps(self) -> list[StepRecord]:
        """All updates, read when they are asked for: a list of runs does without."""
        return read_steps(self.folder) if self.done else []

    @property
    def wanted(self) -> int | None:
        """Updates that the run is to make; None where that follows from the data, and no report says it yet."""
        if "steps_wanted" in self.report:
            return int(self.report["steps_wanted"])
        return int(self.settings.get("steps", 0)) if self.task != "words" else None

    @property
    def best(self) -> Evaluation | None:
        """The measurement with the lowest validation loss."""
        return min(self.evaluations, key=lambda one: one.loss, default=None)


def past_runs(root: Path) -> list[PastRun]:
    """All runs below a folder, the oldest first. Folders that are no runs are passed over."""
    folders = sorted(path.parent for path in root.glob(f"*/{CONFIG}"))
    return sorted((_read_or_say(folder) for folder in folders), key=lambda run: run.started or 0.0)


def _read_or_say(folder: Path) -> PastRun:
    """The run; one that is damaged hides no other."""
    try:
        return read_run(folder)
    except CheckpointError as error:
        return PastRun(folder, f"damaged: {error}", {}, started=_made(folder))


def read_run(folder: Path) -> PastRun:
    """Everything of one run. Raises CheckpointError if it is no run folder, or its settings or metrics are damaged."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is no run folder: it has no {CONFIG}; `chainrule runs` lists them")
    settings = dict(flattened(_settings(folder / CONFIG)))
    if not (folder / FILE).is_file():
        status = "running" if is_training(folder) else "killed"
        return PastRun(folder, status, settings, started=_made(folder))
    notes = read_times(folder)
    status = _status(folder, [kind for kind, _ in notes])
    done, seconds = read_totals(folder)
    return PastRun(
        folder,
        status,
        settings,
        done,
        seconds,
        tuple(read_evaluations(folder)),
        next((time for kind, time in notes if kind == "started"), _made(folder)),
        _report(folder / REPORT) if status in ENDINGS else {},  # of an earlier session, if the run goes on
    )


def _made(folder: Path) -> float:
    """When the settings of a run were written."""
    return (folder / CONFIG).stat().st_mtime


def flattened(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("section.field", value) of nested tables."""
    for name, value in tables.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def is_training(folder: Path) -> bool:
    """True if a process holds the run's lock. Where files cannot be locked nobody knows, and the answer is no."""
    if sys.platform == "win32" or not (folder / LOCK).is_file():
        return False
    with (folder / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _status(folder: Path, kinds: list[str]) -> str:
    """The last word on how the run stands. The lock is only looked at if the run wrote of no end."""
    last = next((kind for kind in reversed(kinds) if kind in (*ENDINGS, "started", "resumed")), "")
    if last in ENDINGS:
        return last
    return "running" if is_training(folder) else "killed"


def _settings(path: Path) -> dict[str, Any]:
    try:
        return read_settings(path)
    except ConfigError as error:  # the run is damaged, not what the user gave
        raise CheckpointError(str(error)) from None


def _report(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
