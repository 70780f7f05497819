"""Checks of the optimizer's step against its own formula."""

from __future__ import annotations

from typing import Any

from chainrule.checks.update import (
    clip_before_unscale,
    clip_order,
    clip_without_effect,
    epsilon_dominates,
    schedule_mismatch,
    schedule_shape,
    step_mismatch,
    stuck_parameters,
    update_below_rounding,
    update_formula,
    update_ratio,
)

CHECKS: tuple[Any, ...] = (update_formula, schedule_mismatch, schedule_shape)
JUDGES: tuple[Any, ...] = (
    stuck_parameters,
    update_below_rounding,
    step_mismatch,
    update_ratio,
    epsilon_dominates,
    clip_order,
    clip_before_unscale,
    clip_without_effect,
)
