"""Checks of the order of calls in the training loop."""

from __future__ import annotations

from typing import Any

from chainrule.checks.loop import (
    frozen_during_training,
    incomplete_checkpoint,
    incomplete_resume,
    lost_micro_batches,
    missing_zero_grad,
    no_update,
    repeated_batches,
    same_order_every_epoch,
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
    lost_micro_batches,
    same_order_every_epoch,
    repeated_batches,
    frozen_during_training,
    incomplete_resume,
    incomplete_checkpoint,
    no_update,
)
