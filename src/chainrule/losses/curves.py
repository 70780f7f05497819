"""Loss and slope along one number, computed from the loss itself: what its plot shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from chainrule.losses.entry import Loss

POINTS = 66
DEFAULTS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Drawn:
    """Points of a curve: x, the loss there, and its derivative along x."""

    x: tuple[float, ...]
    loss: tuple[float, ...]
    slope: tuple[float, ...]


def along(loss: Loss, settings: Mapping[str, Any] = DEFAULTS) -> Drawn:
    """One term of a loss of the catalogue along its curve, evenly spaced, in float64; huber's reaches 4 δ to both sides."""
    reach = settings.get("delta", 1.0)
    low, high = reach * loss.curve.low, reach * loss.curve.high
    return slopes(lambda x: loss.function(**loss.curve.at(x), **settings), low, high)


def slopes(function: Callable[[Tensor], Tensor], low: float, high: float) -> Drawn:
    """A function of one number and its derivative by autograd, at evenly spaced points."""
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)
    pairs = [_value_and_slope(function, one) for one in x]
    return Drawn(tuple(x.tolist()), tuple(value for value, _ in pairs), tuple(slope for _, slope in pairs))


def _value_and_slope(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, float]:
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    if not value.requires_grad:
        return float(value), 0.0
    (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return float(value.detach()), 0.0 if slope is None else float(slope)
