"""Checks of the order of calls in the training loop."""

from __future__ import annotations

from typing import Any

from chainrule.checks.loop import (
    missing_zero_grad,
    scheduler_before_optimizer,
    scheduler_pace,
    step_without_gradient,
    zero_grad_before_step,
)

JUDGES: tuple[Any, ...] = (
    missing_zero_grad,
    zero_grad_before_step,
    step_without_gradient,
    scheduler_before_optimizer,
    scheduler_pace,
)
