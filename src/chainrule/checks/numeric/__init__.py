"""Checks of hazards of floating-point numbers."""

from __future__ import annotations

from typing import Any

from chainrule.checks.numeric import (
    autocast_gap,
    batch_not_finite,
    exp_overflow,
    fully_masked_row,
    gradient_underflow,
    log_underflow,
    loss_not_finite,
    low_precision_integers,
    nan_gradient,
    near_overflow,
    no_labels,
    saturated_probability,
)

CHECKS: tuple[Any, ...] = (
    batch_not_finite,
    no_labels,
    nan_gradient,
    fully_masked_row,
    saturated_probability,
    log_underflow,
    exp_overflow,
    gradient_underflow,
    near_overflow,
    low_precision_integers,
    autocast_gap,
)
JUDGES: tuple[Any, ...] = (loss_not_finite,)
