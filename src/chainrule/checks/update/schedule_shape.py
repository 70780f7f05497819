"""schedule-shape: the rates that a schedule will give cannot be meant.

What it checks
    The schedule run through: it moves the optimizer that is used; it moves at all; it does not stay at zero when training
    begins; it makes no leap upwards in the middle of smooth parts.
Why it matters
    A schedule made for an optimizer that was replaced moves nothing. A warm-up that divides integers gives zero. A decay that
    counts from the wrong update leaps at the end of the warm-up.
How it decides
    Rates over the schedule's own length or 1,000 updates, in a copy of the process. Another optimizer's groups: an error. No
    change at all, except of constant ones; zero in two or more of the first ten updates; a rise by 0.3 of the largest rate in
    one update with changes before and after it below a tenth of that, except of schedules that restart or hold: warnings.
Broken
    schedule = LambdaLR(optimizer, lambda t: min(1, t // 100))
Repaired
    schedule = LambdaLR(optimizer, lambda t: min(1, t / 100))
Limits
    Where the run will end is not known: a schedule too long or too short for it is not seen.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingWarmRestarts, CyclicLR, LRScheduler

from chainrule.checks.subject import Subject
from chainrule.checks.update.dry_run import NoDryRunError, horizon, rates_of, schedule_of
from chainrule.finding import Finding, NotRun, Outcome

NAME = "schedule-shape"
BEGINNING, LEAP, SMOOTH = 10, 0.3, 0.1
LEAPING = (CosineAnnealingWarmRestarts, CyclicLR, ConstantLR)


def check(subject: Subject) -> Outcome:
    """Whether the rates to come can be meant."""
    try:
        schedule = schedule_of(subject.setup)
        if _of_another(schedule, subject.setup.optimizers):
            return [_other(subject, schedule)]
        rates = rates_of(schedule, horizon(schedule))
    except NoDryRunError as error:
        return NotRun(str(error))
    columns = [list(column) for column in zip(*rates, strict=True)]
    column = max(columns, key=max)
    message, note = _judged(schedule, column)
    return [_finding(subject, schedule, "warning", message, note, column)] if message else []


def _judged(schedule: LRScheduler, rates: list[float]) -> tuple[str, str]:
    """What is wrong with the rates of the group that learns fastest, and what to do; "" if nothing."""
    zeros = sum(rate == 0 for rate in rates[:BEGINNING])
    if zeros >= 2:
        return (
            f"{zeros} of the first {min(BEGINNING, len(rates))} updates have rate 0",
            "A warm-up that begins at zero wastes its first update; one that stays there divides integers.",
        )
    if max(rates) - min(rates) <= 1e-9 * max(rates) and not _constant(schedule):
        return (
            f"the rate stays {rates[0]:g} over {len(rates)} updates",
            "The schedule moves nothing: look at its factor.",
        )
    leap = _leap(rates) if not _leaps(schedule) else None
    if leap is not None:
        return (
            f"the rate leaps from {rates[leap - 1]:.3g} to {rates[leap]:.3g} at update {leap}",
            "Where two parts meet the second must begin at the height of the first: count its updates from there.",
        )
    return "", ""


def _leap(rates: list[float]) -> int | None:
    """The update at which the rate rises at once, in the middle of smooth parts."""
    changes = [later - earlier for earlier, later in itertools.pairwise(rates)]
    for place in range(1, len(changes) - 1):
        limit = SMOOTH * changes[place]
        calm = abs(changes[place - 1]) < limit and abs(changes[place + 1]) < limit
        if changes[place] > LEAP * max(rates) and calm:
            return place + 1
    return None


def _of_another(schedule: LRScheduler, optimizers: tuple[Optimizer, ...]) -> bool:
    """True if the schedule writes rates that no optimizer of the set-up reads."""
    if not optimizers:
        return False
    theirs = {id(group) for group in schedule.optimizer.param_groups}
    return not any(id(group) in theirs for optimizer in optimizers for group in optimizer.param_groups)


def _parts(schedule: Any) -> list[Any]:
    return [schedule, *(inner for part in getattr(schedule, "_schedulers", []) for inner in _parts(part))]


def _leaps(schedule: LRScheduler) -> bool:
    return any(isinstance(part, LEAPING) for part in _parts(schedule))


def _constant(schedule: Any) -> bool:
    rules = [getattr(rule, "func", rule) for rule in getattr(schedule, "lr_lambdas", [])]  # a partial's own function
    names = [getattr(rule, "__qualname__", "") for rule in rules]
    return "Constant" in type(schedule).__name__ or any("constant" in name.lower() for name in names)


def _other(subject: Subject, schedule: LRScheduler) -> Finding:
    return _finding(
        subject,
        schedule,
        "error",
        "the schedule moves the rates of another optimizer than the one that trains",
        "Make the schedule after the optimizer that is used, and from it.",
        [],
    )


def _finding(
    subject: Subject, schedule: LRScheduler, severity: Any, message: str, note: str, rates: list[float]
) -> Finding:
    shown = sorted({0, 1, 2, len(rates) // 2, len(rates) - 1}) if rates else []
    return Finding(
        check=NAME,
        severity=severity,
        where=f"{type(schedule).__name__} of {type(schedule.optimizer).__name__}",
        message=message,
        evidence={"rates": rates[:BEGINNING], "updates": len(rates)},
        rows=tuple((f"update {update}", f"{rates[update]:.6g}", "") for update in shown),
        notes=(note,),
        reproduce=subject.reproduce(NAME),
    )
