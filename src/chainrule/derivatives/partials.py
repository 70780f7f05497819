"""Elementwise ops of several tensors: the partial derivatives by argument, from which vjp, jvp and bound follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.rule import F, Rules, call_by_name, check_signature


def partials(rules: Rules, *ops: OpOverload, **declared: Any) -> Callable[[F], F]:
    """Register (y, arguments) -> {argument name: ∂y/∂argument}, the `Rules.local` of several tensors.

    Every op is one of y_i = f(a_i, b_i, ..): dL/da = g · ∂y/∂a, and dy = Σ ∂y/∂a · da.
    """

    def register(function: F) -> F:
        def derivatives(y: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            return call_by_name(function, arguments, y)  # type: ignore[no-any-return]

        def vjp(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Any]:
            return {name: g * partial for name, partial in derivatives(y, arguments).items()}

        def jvp(y: Tensor, t: Mapping[str, Any], **arguments: Any) -> Any:
            return sum(t[name] * partial for name, partial in derivatives(y, arguments).items() if name in t)

        def abs_bound(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Any]:
            return {name: (g * partial).abs() for name, partial in derivatives(y, arguments).items()}

        for op in ops:
            check_signature(op, function, ("y",))
        vjp.__doc__, vjp.__name__ = function.__doc__, function.__name__
        rules.vjp(*ops, jvp=jvp, abs_bound=abs_bound, **declared)(vjp)
        return function

    return register
