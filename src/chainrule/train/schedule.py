"""The learning rate of each update: a linear rise to the peak, then a course.

    w warm-up steps, n steps, f final share, u = (step - w) / (n - 1 - w), the share of the course that is over
    step <  w:   peak (step + 1) / w
    cosine       peak (f + (1 - f) (1 + cos πu) / 2)
    linear       peak (f + (1 - f) (1 - u))
    constant     peak
    one-cycle    peak (1/25 to 1 by half a cosine in 30 % of all n steps, then down to f)        Smith & Topin 2017, 1708.07120
    plateau      peak max(f, factor^reductions)

A function of the step alone, but for the plateau's reductions, so that there is next to nothing to save. Step 0 already
moves: a rate of 0 would waste it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from chainrule.train.config import ScheduleConfig

RISE = 0.3
START = 1 / 25


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig, reductions: int = 0) -> float:
    """The learning rate of update number `step`, counted from 0, of `steps`, after so many reductions by the plateau."""
    if schedule.name == "one-cycle":
        return peak * one_cycle(share(step, steps), schedule.final_fraction)
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    if schedule.name == "plateau":
        return peak * max(schedule.final_fraction, schedule.plateau_factor**reductions)
    over = share(step - schedule.warmup_steps, steps - schedule.warmup_steps)
    return peak * _COURSES[schedule.name](over, schedule.final_fraction)


def share(step: int, steps: int) -> float:
    """0 at the first step, 1 at the last."""
    return min(1.0, step / max(1, steps - 1))


def cosine(u: float, f: float) -> float:
    """From 1 at u = 0 to f at u = 1 by half a cosine."""
    return f + (1 - f) * (1 + math.cos(math.pi * u)) / 2


def linear(u: float, f: float) -> float:
    """From 1 at u = 0 to f at u = 1 in a straight line."""
    return f + (1 - f) * (1 - u)


def constant(u: float, f: float) -> float:  # noqa: ARG001
    """1."""
    return 1.0


def one_cycle(u: float, f: float) -> float:
    """From 1/25 up to 1 at u = 0.3, then down to f."""
    return cosine(1 - u / RISE, START) if u < RISE else cosine((u - RISE) / (1 - RISE), f)


_COURSES: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {"cosine": cosine, "linear": linear, "constant": constant}
)
