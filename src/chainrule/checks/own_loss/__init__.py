"""Checks of a loss function of the user's own, before it trains anything: gradient, edges, scale, reduction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from chainrule.checks.own_loss import (
    loss_not_a_mean,
    loss_scale,
    loss_unstable,
    loss_without_gradient,
    loss_wrong_gradient,
)

GROUPS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "loss gradient": (loss_without_gradient, loss_wrong_gradient),
        "loss edges": (loss_unstable,),
        "loss terms": (loss_scale, loss_not_a_mean),
    }
)
CHECKS: tuple[Any, ...] = tuple(check for checks in GROUPS.values() for check in checks)
