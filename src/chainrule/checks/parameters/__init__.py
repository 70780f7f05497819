"""Checks of which tensors are parameters, reach the loss, and are held by the optimizer."""

from __future__ import annotations

from typing import Any

from chainrule.checks.parameters import (
    dead_loss_term,
    dead_parameter,
    discarded_result,
    frozen_parameter,
    not_in_optimizer,
    not_registered,
    twice_in_optimizer,
    untied,
)

CHECKS: tuple[Any, ...] = (
    not_in_optimizer,
    twice_in_optimizer,
    not_registered,
    frozen_parameter,
    untied,
    dead_parameter,
    dead_loss_term,
    discarded_result,
)
