"""scheduler-before-optimizer: the schedule moves before the optimizer has used its first rate.

What it checks
    The first step of a schedule comes after the first step of its optimizer.
Why it matters
    The first rate of the schedule is never used, and all others come one update early. With a schedule by epochs that is one
    epoch at the wrong rate after every drop.
How it decides
    A scheduler's step with no earlier step of its optimizer, and a step of the optimizer before the next one: several in a
    row only bring the schedule to where a resumed run is. A step that a GradScaler skipped counts as one.
Broken
    for x, y in loader:
        schedule.step()
        train(x, y)                                      # calls optimizer.step()
Repaired
    for x, y in loader:
        train(x, y)
        schedule.step()
Limits
    Only the first step tells: later ones look alike in either order.
"""

from __future__ import annotations

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "scheduler-before-optimizer"


def judge(observed: Observed) -> Outcome:
    """Whether a schedule moves before its optimizer's first step."""
    calls = list(observed.of("schedule", "step"))
    if not any(event.kind == "schedule" for event in calls):
        return NotRun("no schedule was seen")
    names = dict.fromkeys(event.who for event in calls if event.kind == "schedule")
    return [_finding(event) for name in names if (event := _early([e for e in calls if e.who == name])) is not None]


def _early(calls: list[Event]) -> Event | None:
    """The one step of the schedule that comes before the first of the optimizer."""
    first = next((position for position, event in enumerate(calls) if event.kind == "step"), None)
    return calls[0] if first == 1 else None


def _finding(event: Event) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=f"{event.numbers.get('scheduler', 'scheduler')} of {event.who}",
        source=event.line,
        message="the scheduler steps before the optimizer: the first rate of the schedule is never used",
        evidence={"rates": list(event.numbers.get("rates") or ())},
        notes=("Call schedule.step() after optimizer.step().",),
    )
