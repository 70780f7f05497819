"""no_grad blocks, which a graph does not have, as `detach` of what leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from chainrule.capture.nodes import IN_PLACE
from chainrule.capture.running import is_floating, renamed
from chainrule.graph import Leaf, Node, Ref, Spec, bind_arguments

aten = torch.ops.aten


def detach_blocks(
    nodes: Iterable[Node], output: Ref, marks: Mapping[str, str], leaves: Mapping[str, Leaf]
) -> tuple[list[Node], Ref]:
    """The nodes and the output, with a `detach` between a node of a no_grad block (see `Trace`) and a user outside it.

    Only where a gradient could pass: a block that computes positions or masks needs none. A change in place keeps the
    history of the tensor that it changes, as in autograd, so it is detached only if that tensor has none.
    """
    active = {Ref(leaf.name) for leaf in leaves.values() if leaf.trainable}  # what a gradient can pass through
    hidden: dict[Ref, Spec] = {}  # active, but computed in a block
    detached: dict[Ref, Ref] = {}
    result: list[Node] = []

    def visible(node: Node, refs: Iterable[Ref]) -> None:
        for ref in refs:
            if ref in hidden and ref not in detached:
                result.append(_detach(node, ref, hidden[ref]))
                detached[ref] = Ref(result[-1].name)

    for node in nodes:
        if node.name not in marks:
            visible(node, node.refs())
            node = renamed(node, detached)
        result.append(node)
        if node.op is aten.detach.default or not any(ref in active for ref in node.refs()):
            continue
        active |= _floating_outputs(node).keys()
        in_place = marks.get(node.name) == IN_PLACE and node.arguments.get("self") in active
        if node.name in marks and not in_place:
            hidden |= _floating_outputs(node)
    if result:
        visible(result[-1], [output])
    return result, detached.get(output, output)


def _detach(node: Node, ref: Ref, spec: Spec) -> Node:
    """The detach of `ref`, at the line of the node that uses it."""
    index = "" if ref.index is None else f"_{ref.index}"
    arguments = bind_arguments(aten.detach.default, (ref,), {})
    return replace(node, name=f"{ref.name}{index}_detached", op=aten.detach.default, arguments=arguments, spec=spec)


def _floating_outputs(node: Node) -> dict[Ref, Spec]:
    if isinstance(node.spec, Spec):
        return {Ref(node.name): node.spec} if is_floating(node.spec) else {}
    return {Ref(node.name, i): spec for i, spec in enumerate(node.spec) if spec is not None and is_floating(spec)}
