"""The tangent of one unit formula: its own jvp, or, where y is linear in the arguments that move, the op itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rule, call_by_name


def has_tangent(rule: Rule, names: frozenset[str]) -> bool:
    """Whether `tangent` can be computed when the arguments `names` have tangents."""
    return rule.jvp is not None or names <= rule.linear_in


def tangent(rule: Rule, y: Any, t: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """dy = Σ over arguments a of (∂y/∂a) t_a, shaped like y: a tuple for an op with several outputs.

    y     the op's output at `arguments`
    t     tangents by argument name, a tuple of tensors for a list argument; an argument without an entry is constant
    Raises LookupError if the rule has no jvp and y is not linear in each of these arguments: see `has_tangent`.
    """
    if rule.jvp is not None:
        return call_by_name(rule.jvp, arguments, y, t)
    if not has_tangent(rule, frozenset(t)):
        raise LookupError(
            f"{rule.op}: no jvp, and linear in {sorted(rule.linear_in)} only; tangents came for {sorted(t)}"
        )
    parts = [_linear_part(rule, name, direction, arguments) for name, direction in t.items()]
    return _sum(parts)


def _linear_part(rule: Rule, name: str, direction: Any, arguments: Mapping[str, Any]) -> Any:
    """op(.., a = direction, ..) - op(.., a = 0, ..): y may be affine in a, such as addmm in each of its matrices."""
    ahead = rule.op(**{**arguments, name: direction})
    at_zero = rule.op(**{**arguments, name: _map(torch.zeros_like, direction)})
    return _map(torch.sub, ahead, at_zero)


def _sum(parts: list[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = _map(torch.add, total, part)
    return total


def _map(function: Any, value: Any, *others: Any) -> Any:
    """The function of the tensors, one by one where there are several."""
    if isinstance(value, Tensor):
        return function(value, *others)
    return tuple(_map(function, *items) for items in zip(value, *others, strict=True))
