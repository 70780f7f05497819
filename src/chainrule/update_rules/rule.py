"""How an optimizer's formula is written: `update(param, grad, state, settings) -> (new param, new state)`, nothing in place.

    param, grad   p and dL/dp, float64, of one shape
    state         what the optimizer remembers of this parameter, by torch's names; empty before the first step
    settings      its param_group by torch's names: lr, betas, weight_decay ...

A formula is read with pencil and paper: step by step as in its paper, with no fused operation and no special case for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Mapping[str, Any]
Settings: TypeAlias = Mapping[str, Any]
Update: TypeAlias = Callable[[Tensor, Tensor, State, Settings], tuple[Tensor, dict[str, Any]]]

EXACT = 0.0


@dataclass(frozen=True, eq=False)
class UpdateRule:
    """One formula under the name that a user knows.

    name         "AdamW"
    update       the formula
    needs        settings without which it has no meaning
    standing     "standard": what the name promises; "disputed": a convention that others use under the same name, a matter
                 of choice; "wrong": a slip that is known from real programs
    family       name of the standard formula that this one is a reading of
    remark       what it does to training, and what to change; "" for a standard
    resolution   relative error of a step below which two honest implementations cannot be told apart; EXACT: only rounding
    dimensions   that a parameter must have at least
    elementwise  True if an entry's step depends on that entry alone, so that a sample of entries can be computed
    """

    name: str
    update: Update
    needs: tuple[str, ...] = ("lr",)
    standing: Literal["standard", "disputed", "wrong"] = "standard"
    family: str = ""
    remark: str = ""
    resolution: float = EXACT
    dimensions: int = 0
    elementwise: bool = True


def uphill(grad: Tensor, settings: Settings) -> Tensor:
    """The gradient that is followed downhill: -grad if the optimizer maximizes."""
    return -grad if settings.get("maximize") else grad


def zeros(state: State, name: str, like: Tensor) -> Tensor:
    """An entry of the state, zero before the first step."""
    value: Tensor | None = state.get(name)
    return torch.zeros_like(like) if value is None else value


def count(state: State) -> float:
    """Number of this step, from 1."""
    return float(state.get("step", 0)) + 1


def number(settings: Settings, name: str, default: float = 0.0) -> float:
    """A setting as a plain number; the default where it is not there or None."""
    value = settings.get(name)
    return float(default if value is None else value)


def pair(settings: Settings, name: str = "betas") -> tuple[float, float]:
    """A setting of two numbers."""
    first, second = settings[name]
    return float(first), float(second)


def suffices(rule: UpdateRule, settings: Settings) -> bool:
    """True if the settings have all that the formula needs, in the form in which it needs it."""
    return all(_is_usable(name, settings.get(name)) for name in rule.needs)


def _is_usable(name: str, value: Any) -> bool:
    if name == "betas" or isinstance(value, (tuple, list)):
        return isinstance(value, (tuple, list)) and len(value) == 2
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
