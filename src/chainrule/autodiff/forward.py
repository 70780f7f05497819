"""Forward mode: the tangent of every value along a direction in the leaves, where the rules give it.

ẏ = Σ ∂y/∂x · ẋ. It shares no formula with reverse mode but the local derivatives, so  ⟨v, Jẋ⟩ = ⟨Jᵀv, ẋ⟩  tests both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve
from chainrule.autodiff.reverse import output_refs, rule_of
from chainrule.derivatives import FLAT
from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.errors import MissingRuleError
from chainrule.graph import Graph, Node, Ref, Value


def jvp(graph: Graph, values: Mapping[str, Value], tangents: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
    """Tangents of all values that depend on the given ones.

    values    of an evaluation of this graph
    tangents  of leaves, in their shapes

    Raises MissingRuleError where a rule has neither `jvp` nor is linear in the arguments that move.
    """
    moving = dict(tangents)
    with torch.no_grad():
        for node in graph.nodes:
            if node.op not in FLAT and any(ref in moving for ref in node.refs()):
                for ref, tangent in push_forward(node, values, moving):
                    moving[ref] = tangent
    return moving


def push_forward(node: Node, values: Mapping[str, Value], moving: Mapping[Ref, Tensor]) -> list[tuple[Ref, Tensor]]:
    """(output, tangent) of one node."""
    rule = rule_of(node)
    arguments = resolve(node, values)
    directions = {
        name: _direction(argument, arguments[name], moving)
        for name, argument in node.arguments.items()
        if name not in rule.nondiff and any(ref in moving for ref in _refs(argument))
    }
    if not directions:
        return []
    tangent = rule_tangent(rule, values[node.name], directions, arguments)
    parts = tangent if isinstance(tangent, (tuple, list)) else (tangent,)
    return [(ref, part) for ref, part in zip(output_refs(node), parts, strict=True) if part is not None]


def rule_tangent(rule: Rule, y: Any, directions: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """The tangent of the output: the rule's own jvp, or by linearity the op itself, one moving argument at a time."""
    if rule.jvp is not None:
        return call_by_name(rule.jvp, arguments, y, directions)
    if not rule.linear_in.issuperset(directions):
        raise MissingRuleError(f"{rule.op} has no forward-mode rule with respect to {sorted(directions)}")
    total: Any = None
    for name, direction in directions.items():
        # The op may also add terms without this argument (a bias), so its value at 0 is taken off.
        step = _minus(rule.op(**{**arguments, name: direction}), rule.op(**{**arguments, name: _zero(direction)}))
        total = step if total is None else _plus(total, step)
    return total


def _direction(argument: Any, value: Any, moving: Mapping[Ref, Tensor]) -> Any:
    if isinstance(argument, Ref):
        return moving[argument]
    return [
        moving[item] if isinstance(item, Ref) and item in moving else _zero(part)
        for item, part in zip(argument, value, strict=True)
    ]


def _refs(argument: Any) -> list[Ref]:
    items = argument if isinstance(argument, tuple) else (argument,)
    return [item for item in items if isinstance(item, Ref)]


def _zero(value: Any) -> Any:
    if isinstance(value, list):
        return [_zero(item) for item in value]
    return torch.zeros_like(value) if isinstance(value, Tensor) else value


def _minus(a: Any, b: Any) -> Any:
    return [_minus(x, y) for x, y in zip(a, b, strict=True)] if isinstance(a, (list, tuple)) else a - b


def _plus(a: Any, b: Any) -> Any:
    return [_plus(x, y) for x, y in zip(a, b, strict=True)] if isinstance(a, (list, tuple)) else a + b
