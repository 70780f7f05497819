"""Checks of initial loss, ranges, symmetry, dead units, depth profile."""

from __future__ import annotations

from typing import Any

from chainrule.checks.statistics import (
    bounded_output,
    constant_labels,
    dead_units,
    depth_profile,
    flipped_sign,
    identical_units,
    idle_batch_norm,
    initial_loss,
    initial_weights,
    label_range,
    linear_stack,
    loss_diverges,
    loss_rises,
    not_log_probabilities,
    penalty_dominates,
    saturated_units,
    shape_broadcast,
    softmax_over_one,
    softmax_twice,
    unscaled_inputs,
)

CHECKS: tuple[Any, ...] = (
    shape_broadcast,
    label_range,
    constant_labels,
    not_log_probabilities,
    softmax_twice,
    softmax_over_one,
    bounded_output,
    flipped_sign,
    initial_loss,
    unscaled_inputs,
    initial_weights,
    identical_units,
    linear_stack,
    dead_units,
    saturated_units,
    depth_profile,
    penalty_dominates,
    idle_batch_norm,
)
JUDGES: tuple[Any, ...] = (loss_rises, loss_diverges)
