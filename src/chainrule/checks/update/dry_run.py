"""A schedule run through in a copy of the process: the rates that it will give, without touching the user's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from chainrule.setups import Setup
from chainrule.watch.fork import WorkFailedError, in_a_copy, why_not

UPDATES, MOST = 1000, 20_000
LENGTHS = ("step_size", "T_max", "T_0", "total_iters", "total_steps")

# For each update the rate of each group.
Rates: TypeAlias = list[list[float]]


class NoDryRunError(Exception):
    """The schedule cannot be run through; the text is a clause that says why."""


def schedule_of(setup: Setup) -> LRScheduler:
    """The schedule of a set-up. Raises NoDryRunError if there is none of a kind that can be run through."""
    schedule = setup.schedule
    if schedule is None:
        raise NoDryRunError("no schedule was given")
    if isinstance(schedule, ReduceLROnPlateau) or not isinstance(schedule, LRScheduler):
        raise NoDryRunError(f"{type(schedule).__name__} is no schedule that depends on the number of updates alone")
    if reason := why_not():
        raise NoDryRunError(reason)
    return schedule


def horizon(schedule: LRScheduler) -> int:
    """Updates that are tried: 1,000, or a little more than the schedule's own length."""
    parts = getattr(schedule, "_schedulers", [])
    own = [int(getattr(schedule, name, 0) or 0) for name in LENGTHS]
    if total := getattr(schedule, "total_steps", None):
        return min(MOST, int(total))  # it refuses to go on
    milestones = [int(milestone) for milestone in getattr(schedule, "_milestones", [])]
    milestones += [int(milestone) for milestone in getattr(schedule, "milestones", ())]
    longest = max([*own, *milestones, sum(horizon(part) for part in parts) if parts else 0])
    return min(MOST, max(UPDATES, longest + 5))


def rates_of(schedule: LRScheduler, updates: int) -> Rates:
    """What the schedule gives from where it is now."""
    return _in_a_copy(partial(_run, schedule, updates))


def rates_from_the_start(schedule: LRScheduler, updates: int) -> Rates:
    """What the schedule gives by itself, begun anew at the base rates."""
    return _in_a_copy(partial(_run_anew, schedule, updates))


def rates_by_parts(schedule: SequentialLR, updates: int) -> Rates:
    """What a sequence says it gives: each part by itself, begun anew at its milestone."""
    return _in_a_copy(partial(_by_parts, schedule, updates))


def closed_form(schedule: LRScheduler, updates: int) -> Rates:
    """The class's own formula for the rate at each update, which does not use the rate before."""
    return _in_a_copy(partial(_by_formula, schedule, updates))


def _in_a_copy(work: Callable[[], Rates]) -> Rates:
    try:
        return in_a_copy(work)
    except WorkFailedError as error:
        raise NoDryRunError(f"the schedule cannot be run through ({str(error).splitlines()[0]})") from error


def _run(schedule: LRScheduler, updates: int) -> Rates:
    """Up to where the schedule itself raises, if it does."""
    rates: Rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer does not step in between
        while len(rates) < updates:
            rates.append(_now(schedule))
            try:
                schedule.step()
            except Exception:
                break
    return rates


def _run_anew(schedule: LRScheduler, updates: int) -> Rates:
    _begin(schedule)
    return _run(schedule, updates)


def _begin(schedule: Any) -> None:
    """What the constructor of a schedule does: base rates, and the step to update 0."""
    for group, rate in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
        group["lr"] = rate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule.last_epoch = -1
        schedule._initial_step()


def _by_parts(schedule: LRScheduler, updates: int) -> Rates:
    if not isinstance(schedule, SequentialLR):
        return _run_anew(schedule, updates)
    bounds = [0, *schedule._milestones, updates]
    rates: Rates = []
    for part, begin, end in zip(schedule._schedulers, bounds, bounds[1:], strict=False):
        rates += _by_parts(part, max(0, min(end, updates) - begin))
    return rates


def _by_formula(schedule: Any, updates: int) -> Rates:
    rates = []
    for update in range(updates):
        schedule.last_epoch = update
        rates.append([float(rate) for rate in schedule._get_closed_form_lr()])
    return rates


def _now(schedule: LRScheduler) -> list[float]:
    return [float(group["lr"]) for group in schedule.optimizer.param_groups]
