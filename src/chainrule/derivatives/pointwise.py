"""Elementwise ops of several tensors, y_i = f(a_i, b_i, ..): what follows from their rule at g = 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.rule import F, Rules, call_by_name


def pointwise(rules: Rules, *ops: OpOverload, **declared: Any) -> Callable[[F], F]:
    """Register (g, y, arguments) -> {argument name: g · ∂y/∂argument}, the `Rules.local` of several tensors.

    The tangent follows, dy = Σ ∂y/∂a · da, and so does the bound |g · ∂y/∂a|: no sums, so nothing cancels.
    """

    def register(function: F) -> F:
        def jvp(y: Tensor, t: Mapping[str, Tensor], **arguments: Any) -> Tensor:
            slopes = call_by_name(function, arguments, torch.ones_like(y), y)
            return sum((t[name] * slope for name, slope in slopes.items() if name in t), torch.zeros_like(y))

        def abs_bound(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Tensor]:
            return {name: part.abs() for name, part in call_by_name(function, arguments, g, y).items()}

        return rules.vjp(*ops, **{"jvp": jvp, "abs_bound": abs_bound, **declared})(function)

    return register
