"""The commands `runs` and `compare`: what run folders hold, also while they train; read without torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from chainrule.errors import ConfigError, did_you_mean
from chainrule.report.plot import Series, plot
from chainrule.report.words import duration
from chainrule.train.comparison import at_common_steps, comparable, curve, differences, figures, progress
from chainrule.train.past import PastRun, past_runs, read_run

PLOT_POINTS = 66
NOTHING = "–"
COLUMNS: tuple[tuple[str, Callable[[PastRun], str]], ...] = (
    ("run", lambda run: run.name),
    ("task", lambda run: run.task),
    ("status", lambda run: run.status),
    ("steps", progress),
    ("best validation", lambda run: f"{run.best.loss:.4f} at {run.best.step:,}" if run.best else NOTHING),
    ("started", lambda run: _when(run.started)),
    ("took", lambda run: duration(run.seconds)),
)


def runs(folder: Path = Path("runs"), /) -> int:
    """List the runs of a folder, the oldest first: task, status, steps, lowest validation loss, when.

    Parameters
    ----------
    folder
        Where run folders are.
    """
    found = past_runs(folder)
    if not found:
        print(f"no runs in {folder}/; `chainrule train` makes one")
        return 0
    table([title for title, _ in COLUMNS], [[cell(run) for _, cell in COLUMNS] for run in found])
    print(f"\n{len(found)} {'run' if len(found) == 1 else 'runs'} in {folder}/; compare two: chainrule compare A B")
    return 0


def compare(first: str, second: str, /, *, folder: Path = Path("runs")) -> int:
    """Set two runs side by side: settings that differ, losses at common steps, a plot of both, what they came to.

    Parameters
    ----------
    first
        A run's name or folder.
    second
        Another's.
    folder
        Where names are looked up.
    """
    one, other = find_run(first, folder), find_run(second, folder)
    print(f"A  {one.folder}, {one.status}\nB  {other.folder}, {other.status}\n")
    show_differences(one, other)
    show_losses(one, other)
    show_figures(one, other)
    return 0


def find_run(name: str, folder: Path) -> PastRun:
    """The run of that folder or name. Raises ConfigError, with the nearest name, if there is none."""
    for path in (Path(name), folder / name):
        if path.is_dir():
            return read_run(path)
    known = [path.name for path in sorted(folder.glob("*")) if path.is_dir()]
    hint = did_you_mean(name, known, f"known are {', '.join(known) or 'none'}")
    raise ConfigError(f"no run {name!r} in {folder}/; {hint}")


def show_differences(one: PastRun, other: PastRun) -> None:
    """The settings that differ."""
    rows = differences(one, other)
    if rows:
        table(["setting", "A", "B"], [list(row) for row in rows])
    else:
        print("all settings are the same")
    if not comparable(one, other):
        print("\nTask, data or unit of the loss differ: the losses below need not be comparable.")


def show_losses(one: PastRun, other: PastRun) -> None:
    """A plot of the training losses, and a table at common steps."""
    rows = at_common_steps(one, other)
    if not rows:
        print(f"\n{'B' if one.steps else 'A'} has made no update yet: there are no losses to compare")
        return
    last = max(one.done, other.done)
    print("\ntraining loss, means over stretches of steps")
    series = [Series(name, *curve(run, last, PLOT_POINTS)) for name, run in (("A", one), ("B", other))]
    for line in plot(series, axis="step"):
        print(line)
    print()
    titles = ["step", "training A", "training B", "validation A", "validation B"]
    table(titles, [[f"{row.step:,}", *map(_number, (*row.training, *row.validation))] for row in rows])


def show_figures(one: PastRun, other: PastRun) -> None:
    """What both came to, line by line."""
    left, right = figures(one), figures(other)
    names = dict.fromkeys([*left, *right])
    print()
    rows = [[name, left.get(name, NOTHING), right.get(name, NOTHING)] for name in names]
    table(["", "A", "B"], rows)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell; the last one is cut at the terminal's edge."""
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    limit = max(shutil.get_terminal_size(fallback=(120, 24)).columns, 80)
    for line in lines:
        text = "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        print(text if len(text) <= limit else f"{text[: limit - 3]}...")


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _when(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
