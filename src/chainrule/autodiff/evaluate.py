"""Run a graph: forward, in the dtype of its leaves, with or without its branches held at a base point."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch._ops import OpOverload

from chainrule.derivatives import FLAT, RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.graph import Argument, Graph, Node, Ref, Spec, Value

aten = torch.ops.aten
_VIEWS = frozenset((aten.view.default, aten._unsafe_view.default))


def evaluate(
    graph: Graph, leaves: Mapping[str, Value] | None = None, frozen_at: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """Values of all leaves and nodes by name.

    leaves     overrides the recorded values of leaves, by leaf name
    frozen_at  values of an earlier evaluation: every branch (ReLU's mask, max's index, where's condition) is taken as it
               was there, which makes the loss a smooth function of its leaves (Clarke-regular pieces need no step-size care)
    """
    values: dict[str, Value] = {name: leaf.value for name, leaf in graph.leaves.items()}
    values.update(leaves or {})
    with torch.no_grad():
        for node in graph.nodes:
            values[node.name] = run_node(node, values, frozen_at)
    return values


def evaluate_loss(
    graph: Graph, leaves: Mapping[str, Value] | None = None, frozen_at: Mapping[str, Value] | None = None
) -> torch.Tensor:
    """The loss alone: as `evaluate`, but each value is dropped after its last use, so that memory stays small."""
    values: dict[str, Value] = {name: leaf.value for name, leaf in graph.leaves.items()}
    values.update(leaves or {})
    last_user = {ref.name: node.name for node in graph.nodes for ref in node.refs()}
    with torch.no_grad():
        for node in graph.nodes:
            values[node.name] = run_node(node, values, frozen_at)
            for name in {ref.name for ref in node.refs()} - {graph.output.name}:
                if last_user[name] == node.name:
                    del values[name]
    return loss_of(graph, values)


def loss_of(graph: Graph, values: Mapping[str, Value]) -> torch.Tensor:
    """The scalar at the graph's top, out of the values of an evaluation."""
    return value_of(graph.output, values)  # type: ignore[no-any-return]


def run_node(node: Node, values: Mapping[str, Value], frozen_at: Mapping[str, Value] | None = None) -> Value:
    """The output of one node, its arguments taken from `values`."""
    if frozen_at is not None:
        if not _is_floating(node) or node.op in FLAT:  # a detach too: what the user holds fixed stays fixed
            return frozen_at[node.name]
        rule = RULES.get(node.op)
        if rule is not None and rule.frozen is not None:
            at = {**resolve(node, frozen_at), "y": frozen_at[node.name]}
            return _tidy(call_by_name(rule.frozen, resolve(node, values), at))
    return run_op(node.op, resolve(node, values))


def run_op(op: OpOverload, arguments: Mapping[str, Argument]) -> Value:
    """op(**arguments), in any memory layout and with nothing in it that torch.autograd could not differentiate."""
    if op in _VIEWS:  # another dtype, device or grad mode may lay the same values out so that no view of them exists
        return arguments["self"].reshape(arguments["size"])
    if op is aten.copy.default:  # autograd knows it only in place
        return arguments["src"].to(arguments["self"].dtype).expand_as(arguments["self"])
    return _tidy(op(**arguments))


def resolve(node: Node, values: Mapping[str, Value]) -> dict[str, Argument]:
    """The node's arguments with every `Ref` replaced by its value."""
    constants, refs, nested = _template(node)
    arguments = dict(constants)
    for name, ref in refs:
        arguments[name] = value_of(ref, values)
    for name, items in nested:
        arguments[name] = [value_of(item, values) if isinstance(item, Ref) else item for item in items]
    return arguments


def value_of(ref: Ref, values: Mapping[str, Value]) -> Value:
    """The value that a `Ref` names."""
    value = values[ref.name]
    return value if ref.index is None else value[ref.index]


@lru_cache(maxsize=65536)  # sorting arguments anew at every step would cost as much as a small op
def _template(
    node: Node,
) -> tuple[dict[str, Any], tuple[tuple[str, Ref], ...], tuple[tuple[str, tuple[Any, ...]], ...]]:
    refs = tuple((name, value) for name, value in node.arguments.items() if isinstance(value, Ref))
    nested = tuple(
        (name, value)
        for name, value in node.arguments.items()
        if isinstance(value, tuple) and any(isinstance(item, Ref) for item in value)
    )
    # A tuple of plain numbers goes to the op as the list that its schema asks for; keys keep the schema's order.
    constants = {name: list(value) if isinstance(value, tuple) else value for name, value in node.arguments.items()}
    return constants, refs, nested


def _is_floating(node: Node) -> bool:
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    return any(spec is not None and spec.dtype.is_floating_point for spec in specs)


def _tidy(value: Value) -> Value:
    return tuple(value) if isinstance(value, list) else value
