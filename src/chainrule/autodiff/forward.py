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
from chainrule.derivatives.tangents import has_tangent, tangent
from chainrule.errors import MissingRuleError
from chainrule.graph import Graph, Node, Ref, Value, refs_in


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
                moving.update(push_forward(node, values, moving))
    return moving


def push_forward(node: Node, values: Mapping[str, Value], moving: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
    """The tangents of one node's outputs."""
    rule = rule_of(node)
    arguments = resolve(node, values)
    directions = {
        name: _direction(argument, arguments[name], moving)
        for name, argument in node.arguments.items()
        if name not in rule.nondiff and any(ref in moving for ref in refs_in(argument))
    }
    if not directions:
        return {}
    if not has_tangent(rule, frozenset(directions)):
        raise MissingRuleError(f"{rule.op} has no forward-mode rule with respect to {sorted(directions)}")
    parts = tangent(rule, values[node.name], directions, arguments)
    parts = parts if isinstance(parts, (tuple, list)) else (parts,)
    return {ref: part for ref, part in zip(output_refs(node), parts, strict=True) if part is not None}


def _direction(argument: Any, value: Any, moving: Mapping[Ref, Tensor]) -> Any:
    if isinstance(argument, Ref):
        return _laid_out(moving[argument], value)
    return tuple(
        moving[item] if isinstance(item, Ref) and item in moving else torch.zeros_like(part)
        for item, part in zip(argument, value, strict=True)
    )


def _laid_out(direction: Tensor, value: Tensor) -> Tensor:
    """The direction with the value's strides: a view is defined for some layouts only."""
    return direction if direction.stride() == value.stride() else torch.empty_like(value).copy_(direction)
