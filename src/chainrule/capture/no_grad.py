"""no_grad blocks, which a graph does not have, as `detach` of what leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch._ops import OpOverload

from chainrule.capture.nodes import IN_PLACE
from chainrule.capture.running import is_floating, renamed
from chainrule.graph import Argument, Leaf, Node, Ref, Spec, bind_arguments

aten = torch.ops.aten


@dataclass
class Detaching:
    """Adds nodes in order, with a `detach` between a node of a no_grad block (see `Trace`) and a user of it outside.

    Only where a gradient could pass: a block that computes positions or masks needs none. A change in place keeps the
    history of the tensor that it changes, as in autograd: the gradient passes by it, to the tensor before the change.
    """

    marks: Mapping[str, str]
    leaves: Mapping[str, Leaf]
    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    added: dict[str, Ref] = field(default_factory=dict)  # each new node, and the value whose shape and layout it has
    _hidden: dict[Ref, tuple[Node, Spec]] = field(default_factory=dict)  # what a gradient passes, computed in a block
    _visible: dict[Ref, Ref] = field(default_factory=dict)  # the same for users outside
    _active: set[Ref] = field(default_factory=set)  # what a gradient can pass through

    def __post_init__(self) -> None:
        self._active |= {Ref(leaf.name) for leaf in self.leaves.values() if leaf.trainable}

    def add(self, nodes: Iterable[Node]) -> None:
        """Add the nodes of a functional graph."""
        for node in nodes:
            inside = node.name in self.marks
            if not inside:
                node = renamed(node, {ref: self.outside(ref) for ref in node.refs()})
            self.nodes.append(node)
            if node.op is not aten.detach.default and any(ref in self._active for ref in node.refs()):
                outputs = _floating_outputs(node)
                self._active |= outputs.keys()
                if inside:
                    self._hidden |= {ref: (node, spec) for ref, spec in outputs.items()}

    def outside(self, ref: Ref) -> Ref:
        """The value as it is for a user outside its no_grad block."""
        if ref not in self._hidden:
            return ref
        if ref not in self._visible:
            node, spec = self._hidden[ref]
            before = node.arguments.get("self") if self.marks[node.name] == IN_PLACE else None
            result = self._append(node, ref, "detached", aten.detach.default, (ref,), spec)
            if isinstance(before, Ref) and before in self._active:
                result = self._passed_by(node, ref, before, result, spec)
            self._visible[ref] = result
        return self._visible[ref]

    def _passed_by(self, node: Node, ref: Ref, before: Ref, detached: Ref, spec: Spec) -> Ref:
        """new = detach(new) + (old - detach(old)): the changed value, with the gradient of the value before."""
        old = self.outside(before)
        constant = self._append(node, ref, "before", aten.detach.default, (old,), spec)
        zero = self._append(node, ref, "zero", aten.sub.Tensor, (old, constant), spec)
        result = self._append(node, ref, "passed_by", aten.add.Tensor, (detached, zero), spec)
        self._active |= {zero, result}
        self.notes.append(
            f"{node.source or node.where}: a tensor with a gradient is changed in place under no_grad; autograd passes "
            "the gradient by this change, and so does the graph."
        )
        return result

    def _append(self, node: Node, ref: Ref, suffix: str, op: OpOverload, args: tuple[Argument, ...], spec: Spec) -> Ref:
        name = f"{ref.name}_{suffix}" if ref.index is None else f"{ref.name}_{ref.index}_{suffix}"
        self.nodes.append(replace(node, name=name, op=op, arguments=bind_arguments(op, args, {}), spec=spec))
        self.added[name] = ref
        return Ref(name)


def _floating_outputs(node: Node) -> dict[Ref, Spec]:
    if isinstance(node.spec, Spec):
        return {Ref(node.name): node.spec} if is_floating(node.spec) else {}
    return {Ref(node.name, i): spec for i, spec in enumerate(node.spec) if spec is not None and is_floating(spec)}
