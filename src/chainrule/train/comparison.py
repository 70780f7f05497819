"""Two runs side by side: where their settings differ, their losses at common steps, what they came to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from chainrule.train.past import PastRun
from chainrule.train.records import StepRecord

ABSENT = "not there"
TERMS = MappingProxyType({"text": "tokens", "table": "rows", "words": "words"})  # of a run that has no report yet
# Settings by which two losses may be of different data or units.
DATA = ("task", "text", "loss", "data.", "table.", "words.")


@dataclass(frozen=True)
class Row:
    """Both runs at one step.

    training    mean of the training losses since the row before
    validation  the last one measured since the row before; None if none was
    """

    step: int
    training: tuple[float | None, float | None]
    validation: tuple[float | None, float | None]


def differences(first: PastRun, second: PastRun) -> list[tuple[str, str, str]]:
    """(setting, value in the first, value in the second) where they differ, names and folders of runs left out."""
    names = dict.fromkeys([*first.settings, *second.settings])
    rows = ((name, first.settings.get(name, ABSENT), second.settings.get(name, ABSENT)) for name in names)
    return [(name, str(a), str(b)) for name, a, b in rows if a != b and name not in ("name", "runs_folder")]


def comparable(first: PastRun, second: PastRun) -> bool:
    """False if what differs between them may change the data or the unit of the loss."""
    units = {run.report.get("loss_unit") for run in (first, second) if run.report}
    changed = [name for name, _, _ in differences(first, second)]
    batch = ("data.batch_size", "data.micro_batch_size", "table.batch_size", "words.batch_size")
    return len(units) <= 1 and not any(name.startswith(DATA) and name not in batch for name in changed)


def at_common_steps(first: PastRun, second: PastRun, rows: int = 10) -> list[Row]:
    """Both runs at about `rows` steps, evenly spaced up to where the shorter one is."""
    last = min(first.done, second.done)
    if last == 0:
        return []
    edges = sorted({round(last * number / rows) for number in range(rows + 1)})
    return [
        Row(
            after,
            (mean_loss(first.steps, before, after), mean_loss(second.steps, before, after)),
            (_measured(first, before, after), _measured(second, before, after)),
        )
        for before, after in pairwise(edges)
    ]


def mean_loss(steps: Sequence[StepRecord], before: float, after: float) -> float | None:
    """Mean training loss of the steps in (before, after]; None if there is none."""
    low = bisect_right(steps, before, key=lambda one: one.step)
    high = bisect_right(steps, after, key=lambda one: one.step)
    losses = [one.loss for one in steps[low:high]]
    return sum(losses) / len(losses) if losses else None


def _measured(run: PastRun, before: int, after: int) -> float | None:
    found = [one.loss for one in run.evaluations if before < one.step <= after]
    return found[-1] if found else None


def curve(run: PastRun, last: int, points: int) -> tuple[list[float], list[float]]:
    """(steps, losses) of a run up to a step: means over `points` equal stretches of steps."""
    edges = [last * number / points for number in range(points + 1)]
    pairs = [
        (float(round(after)), loss)
        for before, after in pairwise(edges)
        if (loss := mean_loss(run.steps, before, after)) is not None
    ]
    return [step for step, _ in pairs], [loss for _, loss in pairs]


def progress(run: PastRun) -> str:
    """40 of 1,500; 40 where it is not known how many are to come."""
    return f"{run.done:,}" if run.wanted is None else f"{run.done:,} of {run.wanted:,}"


def figures(run: PastRun) -> dict[str, str]:
    """What a run came to, by label."""
    found = {"status": run.status, "task": run.task, "steps": progress(run)}
    if run.best is not None:
        found["best validation loss"] = f"{run.best.loss:.4f} at step {run.best.step:,}"
    report = run.report
    for label, key in (("final validation loss", "validation_loss"), ("to beat", "baseline_loss")):
        if isinstance(report.get(key), float):
            found[label] = f"{report[key]:.4f}"
    if run.steps:
        found["last training loss"] = f"{run.steps[-1].loss:.4f}"
        found["time in updates"] = f"{run.seconds:.1f} s"
        terms = sum(one.terms for one in run.steps)
        found[f"{_terms(run)} a second"] = f"{terms / run.seconds:,.0f}" if run.seconds else "?"
    if report:
        found["parameters"] = f"{report['parameters']:,}"
    metrics = report.get("metrics") or {}
    return found | {name: f"{value:.4g}" for name, value in metrics.items() if isinstance(value, int | float)}


def _terms(run: PastRun) -> str:
    """What a loss is the mean over; vectors of words have predictions without the kernel."""
    return f"{run.report['term']}s" if "term" in run.report else TERMS.get(run.task, "terms")
