"""scheduler-pace: the schedule moves several times per update of its optimizer.

What it checks
    Between two steps of an optimizer each of its schedulers steps at most once.
Why it matters
    A schedule written in updates but moved per micro-batch, or once per process, ends k times too early: most of the run
    trains at its last, smallest rate.
How it decides
    In every window between two steps that was seen, three at least, one scheduler stepped the same number of times, two or
    more. A warning: schedules can be written in micro-batches on purpose.
Broken
    for i, (x, y) in enumerate(loader):
        (loss(model(x), y) / 4).backward()
        if i % 4 == 3:
            optimizer.step(); optimizer.zero_grad()
        schedule.step()                                  # four times per update
Repaired
    for i, (x, y) in enumerate(loader):
        (loss(model(x), y) / 4).backward()
        if i % 4 == 3:
            optimizer.step(); optimizer.zero_grad()
            schedule.step()
Limits
    Two schedulers of one class on one optimizer are taken for one.
"""

from __future__ import annotations

from collections import Counter

from chainrule.checks.loop.timeline import Window, optimizers, windows
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "scheduler-pace"
WINDOWS = 3


def judge(observed: Observed) -> Outcome:
    """Whether a scheduler moves several times per update, all along."""
    if not any(observed.of("schedule")):
        return NotRun("no schedule was seen")
    found = []
    for name in optimizers(observed):
        seen = [w for w in windows(observed) if w.step.who == name and w.before is not None]
        found += [_finding(seen, kind, times) for kind, times in _paces(seen).items() if times >= 2]
    return found


def _paces(seen: list[Window]) -> dict[str, int]:
    """class of a scheduler -> how many times it steps in every window; those that vary are left out."""
    if len(seen) < WINDOWS:
        return {}
    counts = [Counter(_kinds(window)) for window in seen]
    return {kind: counts[0][kind] for kind in counts[0] if len({count[kind] for count in counts}) == 1}


def _kinds(window: Window) -> list[str]:
    own = [event for event in window.of("schedule") if event.who == window.step.who]
    return [str(event.numbers.get("scheduler", "")) for event in own]


def _finding(seen: list[Window], kind: str, times: int) -> Finding:
    own = [event for event in seen[0].of("schedule") if event.numbers.get("scheduler") == kind]
    return Finding(
        check=NAME,
        severity="warning",
        where=f"{kind} of {seen[0].step.who}",
        source=own[0].line,
        message=f"the scheduler steps {times} times per update, so the schedule ends {times} times too early",
        evidence={"times": times, "updates": len(seen)},
        notes=(
            "Step it where the optimizer steps. If its lengths are counted in micro-batches on purpose, leave it as it is.",
        ),
    )
