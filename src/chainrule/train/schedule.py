"""The learning rate of each update: a linear rise to the peak, then half a cosine down.

    w warm-up steps, n steps, f final share
    step <  w:  peak (step + 1) / w
    step >= w:  peak (f + (1 - f) (1 + cos(pi (step - w) / (n - 1 - w))) / 2)

A function of the step alone, so that there is nothing to save. Step 0 already moves: a rate of 0 would waste it.
"""

from __future__ import annotations

import math

from chainrule.train.config import ScheduleConfig


def learning_rate(step: int, steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """The learning rate of update number `step`, counted from 0, of `steps`."""
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    last = max(1, steps - 1 - schedule.warmup_steps)
    phase = min(1.0, (step - schedule.warmup_steps) / last)
    f = schedule.final_fraction
    return peak * (f + (1 - f) * (1 + math.cos(math.pi * phase)) / 2)
