"""Dropout: y = x·m/(1 − p) with a mask m of zeros and ones (Srivastava et al. 2014).

Capture records the mask as a leaf, after which dropout is a product like any other; these rules are for a graph that still
holds the op, and see the mask only where the op returns it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules
from chainrule.errors import MissingRuleError

aten = torch.ops.aten
rules = Rules()


def kept(x: Tensor, mask: Tensor, p: float, train: bool | None) -> Tensor:
    """x·m/(1 − p); the op takes `train` = None for True."""
    scale = 1.0 if train is False else 0.0 if p == 1 else 1 / (1 - p)
    return x * mask * scale


def _frozen(at: Mapping[str, Any], input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    return kept(input, at["y"][1], p, train), at["y"][1]


def _jvp(y: Any, t: Mapping[str, Tensor], p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    return kept(t["input"], y[1], p, train), torch.zeros_like(y[1])


@rules.vjp(aten.native_dropout.default, frozen=_frozen, jvp=_jvp)
def native_dropout(g: Any, y: Any, input: Tensor, p: float, train: bool | None) -> dict[str, Tensor]:
    """y = input·m/(1 − p)  and the mask m            dL/dinput = g·m/(1 − p)"""
    return {"input": kept(g[0], y[1], p, train)}


@rules.vjp(aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, linear_in=("input",))
def dropout(g: Tensor, y: Tensor, input: Tensor, p: float, train: bool) -> dict[str, Tensor]:
    """y = input, in evaluation or with p = 0            dL/dinput = g"""
    if train and p > 0:
        raise MissingRuleError(
            f"dropout with p = {p} in training draws its mask inside, where no rule can see it. Capture the graph, which "
            "draws the mask as a leaf, or use native_dropout, which returns it."
        )
    return {"input": g}
