"""Which token each entry of an activation came from, followed through changes of shape from a linear layer to attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, run_op
from chainrule.graph import Graph, Node, Ref, Spec, op_name

# A value's map has its shape and holds, for each entry, the number of the token that the entry is a feature of.
Maps = dict[Ref, Tensor]
_LAYOUT = {
    "view",
    "unsafe_view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "expand",
    "slice",
    "select",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "clone",
    "contiguous",
    "flatten",
    "unflatten",
    "repeat",
    "alias",
}
_PER_TOKEN = {"linear", "addmm", "mm"}
_ATTENTION = {"scaled_dot_product_attention"}


def follow(node: Node, maps: Maps, values: Mapping[str, object]) -> None:
    """Add the maps of the node's outputs, if they can be known: of a layer per token, a change of shape, an entrywise op."""
    name = op_name(node.op)
    if name in _PER_TOKEN and isinstance(node.spec, Spec) and len(node.spec.shape) > 1:
        maps[Ref(node.name)] = numbered(node.spec.shape, -1)
    elif name in _LAYOUT and _only(node) in maps:
        _reshaped(node, maps, values)
    elif isinstance(node.spec, Spec) and name not in _ATTENTION:
        same = [maps[ref] for ref in node.refs() if ref in maps and tuple(maps[ref].shape) == node.spec.shape]
        if same and all(torch.equal(same[0], other) for other in same[1:]) and name not in ("bmm", "matmul"):
            maps[Ref(node.name)] = same[0]


def numbered(shape: tuple[int, ...], *features: int) -> Tensor:
    """Numbers of the tokens, the same along the axes of features."""
    axes = {axis % len(shape) for axis in features}
    reduced = [1 if axis in axes else size for axis, size in enumerate(shape)]
    count = int(torch.tensor(reduced).prod())
    return torch.arange(count).reshape(reduced).expand(shape)


def attentions(graph: Graph) -> list[Node]:
    """The fused attentions of the graph, and the products under a softmax of those that are written out."""
    nodes = {node.name: node for node in graph.nodes}
    found = []
    for node in graph.nodes:
        if op_name(node.op) in _ATTENTION:
            found.append(node)
        elif op_name(node.op) == "softmax" and (product := _product_under(node, nodes)) is not None:
            found.append(product)
    return found


def read(node: Node) -> list[Ref]:
    """The queries, keys and values that an attention, or the product under its softmax, reads."""
    names = ("query", "key", "value") if op_name(node.op) in _ATTENTION else ("self", "mat2", "other")
    return [ref for name in names if isinstance(ref := node.arguments.get(name), Ref)]


def heads_axis(tokens: Tensor) -> int | None:
    """The axis of heads of queries, keys or values (..., T, K), by their map; None if there is none that makes sense.

    Every row, or every column, must belong to one token, and all heads to the same one. With one head, each token has one
    row, and any axis will do: -3.
    """
    if tokens.dim() < 3:
        return None
    rows = _constant_along(tokens, -1)
    rows = rows if rows is not None else _constant_along(tokens, -2)
    if rows is None:
        return None
    if int(torch.bincount(rows.flatten().long()).max()) == 1:
        return -3
    leading = [axis for axis in range(rows.dim() - 1) if rows.shape[axis] > 1]
    found = [axis for axis in leading if _constant_along(rows, axis) is not None]
    return found[-1] - tokens.dim() if found else None


def is_whole(tokens: Tensor) -> bool:
    """True if every row, or every column, belongs to one token."""
    return any(_constant_along(tokens, axis) is not None for axis in (-1, -2) if tokens.dim() >= -axis)


def _constant_along(tokens: Tensor, axis: int) -> Tensor | None:
    first = tokens.select(axis, 0)
    return first if bool((tokens == first.unsqueeze(axis)).all()) else None


def _only(node: Node) -> Ref | None:
    first = next(iter(node.arguments.values()), None)
    return first if isinstance(first, Ref) else None


def _reshaped(node: Node, maps: Maps, values: Mapping[str, object]) -> None:
    first = _only(node)
    assert first is not None
    name = next(iter(node.arguments))
    result = run_op(node.op, resolve(node, values) | {name: maps[first]})
    if isinstance(result, Tensor):
        maps[Ref(node.name)] = result
    else:
        maps.update({Ref(node.name, i): part for i, part in enumerate(result) if isinstance(part, Tensor)})


def _product_under(node: Node, nodes: Mapping[str, Node]) -> Node | None:
    """The matrix product that a softmax takes its scores from, behind scales and masks."""
    for _ in range(6):
        refs = [nodes[ref.name] for ref in node.refs() if ref.name in nodes]
        if not refs:
            return None
        product = next((other for other in refs if op_name(other.op) in ("bmm", "matmul")), None)
        if product is not None:
            return product
        node = refs[0]
    return None
