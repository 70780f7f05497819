"""Checks of which tensors are parameters, reach the loss, and are held by the optimizer."""

from __future__ import annotations

from typing import Any

from chainrule.checks.parameters import dead_parameter, not_in_optimizer

CHECKS: tuple[Any, ...] = (not_in_optimizer, dead_parameter)
