"""schedule-mismatch: a schedule does not give the rates that its parts or its own formula say.

What it checks
    A SequentialLR run through gives what its parts give, each begun anew at its milestone. A schedule whose class has a closed
    formula beside its step-by-step rule gives the same by both.
Why it matters
    Schedules multiply the rate that is there. One that stands inside of another, or is begun in the wrong place, multiplies the
    wrong one: the rate starts at the wrong height or never comes back, and nothing raises.
How it decides
    Both are run through in a copy of the process, over the schedule's own length or 1,000 updates; a rate that differs by more
    than 1e-6 of the largest. A sequence that is not its parts is an error, as is one that raises on the way; a formula that
    differs is a warning where the class overrides it.
Broken
    SequentialLR(optimizer, [SequentialLR(optimizer, [warmup, hold], [10]), decay], [60])    # one update early in torch 2.13
Repaired
    SequentialLR(optimizer, [warmup, hold, decay], [10, 60])
Limits
    Schedules of torch.optim.lr_scheduler that depend on the number of updates alone.
"""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from chainrule.checks.subject import Subject
from chainrule.checks.update.dry_run import (
    NoDryRunError,
    Rates,
    closed_form,
    horizon,
    rates_by_parts,
    rates_from_the_start,
    rates_of,
    schedule_of,
)
from chainrule.finding import Finding, NotRun, Outcome

NAME = "schedule-mismatch"
EXACTLY = 1e-6  # of the largest rate


def check(subject: Subject) -> Outcome:
    """The schedule's rates by its steps and by its parts or formula."""
    try:
        schedule = schedule_of(subject.setup)
        if getattr(schedule, "last_epoch", 0) > 0:
            return NotRun("the schedule has already been stepped")
        return _compare(subject, schedule)
    except NoDryRunError as error:
        return NotRun(str(error))


def _compare(subject: Subject, schedule: LRScheduler) -> Outcome:
    updates = horizon(schedule)
    if isinstance(schedule, SequentialLR):
        if not _plain(schedule):
            return NotRun("a part of the sequence has no base rates of its own")
        theirs, declared, way = (
            rates_of(schedule, updates),
            rates_by_parts(schedule, updates),
            "the sequence of its parts",
        )
    elif hasattr(schedule, "_get_closed_form_lr"):
        theirs, declared = rates_from_the_start(schedule, updates), closed_form(schedule, updates)
        way = "its closed formula"
    else:
        return NotRun(f"{type(schedule).__name__} has no parts and no closed formula to compare with")
    place = _first_difference(theirs, declared)
    if place is not None:
        return [_finding(subject, schedule, theirs, declared, place, way)]
    return [_ends(subject, schedule, len(theirs))] if len(theirs) < min(updates, len(declared)) else []


def _plain(schedule: Any) -> bool:
    parts = schedule._schedulers
    return all(_plain(part) if isinstance(part, SequentialLR) else hasattr(part, "base_lrs") for part in parts)


def _first_difference(theirs: Rates, declared: Rates) -> tuple[int, int] | None:
    """(update, group)."""
    largest = max((abs(rate) for rates in declared for rate in rates), default=0.0)
    for update, (one, other) in enumerate(zip(theirs, declared, strict=False)):
        for group, (rate, wanted) in enumerate(zip(one, other, strict=True)):
            if abs(rate - wanted) > EXACTLY * largest:
                return update, group
    return None


def _ends(subject: Subject, schedule: LRScheduler, updates: int) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=f"{type(schedule).__name__} of {type(schedule.optimizer).__name__}",
        message=f"the schedule raises at update {updates}, within its own length",
        evidence={"updates": updates},
        notes=("A sequence can stand in a sequence only as its first part: put the parts of both into one.",),
        reproduce=subject.reproduce(NAME),
    )


def _finding(
    subject: Subject, schedule: LRScheduler, theirs: Rates, declared: Rates, place: tuple[int, int], way: str
) -> Finding:
    update, group = place
    name = type(schedule).__name__
    own = isinstance(schedule, SequentialLR) or type(schedule).__module__.startswith("torch.")
    later = sum(_first_difference([a], [b]) is not None for a, b in zip(theirs, declared, strict=False))
    return Finding(
        check=NAME,
        severity="error" if own else "warning",
        where=f"{name} of {type(schedule.optimizer).__name__}",
        message=f"at update {update} the rate is {theirs[update][group]:.6g}; by {way} it is {declared[update][group]:.6g}",
        evidence={
            "update": update,
            "rate": theirs[update][group],
            "declared": declared[update][group],
            "differ": later,
        },
        rows=tuple(
            (f"update {t}", f"{theirs[t][group]:.6g}", f"declared {declared[t][group]:.6g}")
            for t in range(max(0, update - 1), min(update + 3, len(theirs)))
        ),
        notes=(
            "Put the parts of a nested sequence into one, with the milestones counted from the beginning."
            if isinstance(schedule, SequentialLR)
            else "get_lr() steps from the rate before; the formula does not. One of them is wrong.",
        ),
        reproduce=subject.reproduce(NAME),
    )
