"""Checks of two ways of computing the same gradient that must agree."""

from __future__ import annotations

from typing import Any

from chainrule.checks.equivalence import (
    batch_order,
    compiled_eager,
    duplicated_batch,
    lost_accumulation,
    memory_layout,
    ragged_accumulation,
    random_in_eval,
    stale_buffers,
    state_between_calls,
    train_eval_gap,
)

CHECKS: tuple[Any, ...] = (
    ragged_accumulation,
    lost_accumulation,
    duplicated_batch,
    batch_order,
    memory_layout,
    random_in_eval,
    state_between_calls,
    train_eval_gap,
    stale_buffers,
)
ON_REQUEST: tuple[Any, ...] = (compiled_eager,)
