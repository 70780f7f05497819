"""Where in the graph a parameter's gradient stops: the formulas that read a value it reaches and pass nothing back."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from chainrule.autodiff.reverse import output_refs
from chainrule.capture.running import ancestors
from chainrule.derivatives import FLAT, RULES
from chainrule.graph import Graph, Leaf, Node, Ref, Spec, op_name, refs_in

aten = torch.ops.aten
# Meant by the user; a step function on the way; an index; anything else that has no derivative.
_STEPS = {"round", "sign", "sgn", "floor", "ceil", "trunc", "fix", "heaviside"}
_INDICES = {"argmax", "argmin", "argsort", "bernoulli", "multinomial", "one_hot"}


def cuts(graph: Graph, leaf: Leaf) -> list[Node]:
    """The formulas at which the gradient of the leaf stops on its ways to the loss, the most telling first."""
    active = carrying(graph, [leaf.name])
    living = ancestors(graph.nodes, [graph.output])
    stopped = (node for node in living if not any(ref in active for ref in passing(node)))
    return sorted((node for node in stopped if any(ref in active for ref in node.refs())), key=rank)


def carrying(graph: Graph, leaves: Collection[str]) -> set[Ref]:
    """The values to which a gradient passes from one of the leaves, given by their names."""
    active = {Ref(name) for name in leaves}
    for node in graph.nodes:
        if any(ref in active for ref in passing(node)):
            active |= set(_floating(node))
    return active


def functions_on_the_way(graph: Graph, leaf: Leaf) -> list[Node]:
    """The nodes of custom autograd.Functions that read a value which the leaf reaches, the first of each Function."""
    active = {Ref(leaf.name)}
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if any(ref in active for ref in node.refs()):
            active |= set(output_refs(node))
            if node.function:
                found.setdefault(node.function, node)
    return list(found.values())


def passing(node: Node) -> Iterator[Ref]:
    """The values to which a gradient passes through the node."""
    if node.op in FLAT:
        return
    rule = RULES.get(node.op)
    for name, argument in node.arguments.items():
        if rule is None or name not in rule.nondiff:
            yield from refs_in(argument)


def rank(node: Node) -> int:
    """0 detach, 1 a step function, 2 an index, 3 another flat formula."""
    name = op_name(node.op)
    if node.op is aten.detach.default:
        return 0
    return 1 if name in _STEPS else 2 if name in _INDICES else 3


def _floating(node: Node) -> Iterator[Ref]:
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    for ref, spec in zip(output_refs(node), specs, strict=True):
        if spec is not None and spec.dtype.is_floating_point:
            yield ref
