"""The summands of a loss: what is added up at the top of the graph, each with its sign and factor."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from chainrule.checks.flow import REARRANGING, Flow
from chainrule.graph import Node, Ref

aten = torch.ops.aten
# op -> the arguments that are summands
ADDING = {
    aten.add.Tensor: ("self", "other"),
    aten.sub.Tensor: ("self", "other"),
    aten.add.Scalar: ("self",),
    aten.sub.Scalar: ("self",),
    aten.rsub.Scalar: ("self",),
    aten.neg.default: ("self",),
}
SCALING = (aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar)


def summands(flow: Flow) -> Iterator[Ref]:
    """The scalar values that the loss is the sum of, a factor before the sum or a term passed through."""
    yield from _of(flow.graph.output, flow)


def _of(ref: Ref, flow: Flow) -> Iterator[Ref]:
    node = flow.nodes.get(ref.name)
    if node is None or flow.value(ref).numel() != 1:
        yield ref
    elif node.op in REARRANGING or node.op in ADDING or _scaled(node):
        for inner in _parts(node):
            yield from _of(inner, flow)
    else:
        yield ref


def _parts(node: Node) -> Iterator[Ref]:
    names = ADDING.get(node.op, ("self",))
    return (node.arguments[name] for name in names if isinstance(node.arguments[name], Ref))


def _scaled(node: Node) -> bool:
    """True for a factor that is a plain number."""
    return (
        node.op in SCALING and isinstance(node.arguments["self"], Ref) and not isinstance(node.arguments["other"], Ref)
    )
