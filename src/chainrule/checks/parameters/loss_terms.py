"""The terms of a loss: what is added up at the end of the graph, behind constant factors and changes of shape."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from chainrule.capture.running import ancestors
from chainrule.graph import Graph, Node, Ref, Spec, op_name

_SUMS = {"add", "sub", "rsub"}
_THROUGH = {"neg", "clone", "view", "reshape", "squeeze", "unsqueeze", "to_copy", "to", "alias", "expand"}
_LISTS = {"stack", "cat"}


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of the loss: a value of the graph, or a plain number that was added.

    node  the formula that computes it, or the sum that adds the number; None for a leaf
    """

    ref: Ref | None
    node: Node | None
    number: float = 0.0


def terms_of(graph: Graph, active: Collection[Ref]) -> list[Term]:
    """The summands of the loss; just one if it is no sum. `active` values carry a gradient: the others are factors."""
    return list(_terms(graph.output, {node.name: node for node in graph.nodes}, active))


def read_by(graph: Graph, ref: Ref) -> set[str]:
    """Names of all leaves and nodes on which the value depends, its own included."""
    return {ref.name} | {other.name for node in ancestors(graph.nodes, [ref]) for other in node.refs()}


def _terms(ref: Ref, nodes: Mapping[str, Node], active: Collection[Ref]) -> Iterator[Term]:
    node = nodes.get(ref.name)
    inside = _inside(node, nodes, active) if node is not None and isinstance(node.spec, Spec) else []
    for inner in inside:
        if isinstance(inner, Ref):
            yield from _terms(inner, nodes, active)
        else:
            yield Term(None, node, float(inner))
    if not inside:
        yield Term(ref, node)


def _inside(node: Node, nodes: Mapping[str, Node], active: Collection[Ref]) -> list[Ref | float]:
    """The summands that the node adds up or passes on; none if it is a term itself."""
    name, arguments = op_name(node.op), node.arguments
    first, other = arguments.get("self"), arguments.get("other")
    if name in _SUMS:
        return [x for x in (first, other) if isinstance(x, Ref) or (isinstance(x, (int, float)) and x != 0)]
    if name in _LISTS:
        return [ref for ref in arguments["tensors"] if isinstance(ref, Ref)]
    if name in ("mul", "div"):
        return _scaled(first, other, active, quotient=name == "div")
    listed = name in ("sum", "mean") and isinstance(first, Ref) and _is_list(nodes.get(first.name))
    return [first] if isinstance(first, Ref) and (name in _THROUGH or listed) else []


def _scaled(first: object, other: object, active: Collection[Ref], *, quotient: bool) -> list[Ref | float]:
    if isinstance(first, Ref) and not (isinstance(other, Ref) and other in active):
        return [first]
    if isinstance(other, Ref) and not quotient and not (isinstance(first, Ref) and first in active):
        return [other]
    return []


def _is_list(node: Node | None) -> bool:
    """True for several numbers put together: their sum is one of terms."""
    return node is not None and op_name(node.op) in _LISTS and isinstance(node.spec, Spec) and len(node.spec.shape) == 1
