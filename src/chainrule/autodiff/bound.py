"""Rounding scale of a gradient: each rule once more on absolute values, so that nothing can cancel.

If  x̄ = Σ ȳ·∂y/∂x  is summed in floating point, its error is at most a few u times  Σ |ȳ|·|∂y/∂x|  (Higham 2002, ch. 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve
from chainrule.autodiff.reverse import cotangent, pull_back, rule_of, shares
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.graph import Node, Ref, Value


def bound_shares(
    node: Node, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor]
) -> Iterator[tuple[Ref, Tensor]]:
    """(argument, Σ |ȳ|·|∂y/∂x|) for every argument of one node: how large the terms are that its gradient sums."""
    if node.op not in RULES:
        yield from ((ref, share.abs()) for ref, share in pull_back(node, values, adjoints))
        return
    rule = rule_of(node)
    bounds = rule_bound(rule, cotangent(node, values, adjoints), values[node.name], resolve(node, values))
    for ref, bound in shares(node, rule, bounds, values):
        yield ref, bound.abs()


def rule_bound(rule: Rule, g: Any, y: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rule's own `abs_bound`; else |g|·|dy/dself| of a local rule; else the rule itself on absolute values.

    A bound of its own gets g with its signs: where g passes many steps inside one op (a recurrent network), bounds of bounds
    would grow with every step, beyond all use.
    """
    if rule.abs_bound is not None:
        return call_by_name(rule.abs_bound, arguments, g, y)  # type: ignore[no-any-return]
    if rule.local is not None:
        slope = call_by_name(rule.local, arguments, y)
        return {"self": _absolute(g) * (_absolute(slope) if isinstance(slope, Tensor) else abs(slope))}
    return rule.gradients(_absolute(g), _absolute(y), {name: _absolute(value) for name, value in arguments.items()})


def _absolute(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_absolute(item) for item in value)
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.abs(value)
    return value
