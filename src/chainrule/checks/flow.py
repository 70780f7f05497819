"""Reading a graph: what made a value, who uses it, which weights act on it, and which losses it ends in.

The checks that look for a wrong combination of formulas (a softmax before a loss that has one, two linear layers with
nothing between) climb and descend here; ops that only rearrange numbers are passed through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.autodiff.evaluate import value_of
from chainrule.autodiff.reverse import active_values, reverse
from chainrule.graph import Graph, Leaf, Node, Ref, Value, refs_in

aten = torch.ops.aten

# The same numbers in another shape, order, dtype or place of memory.
REARRANGING: frozenset[OpOverload] = frozenset(
    {aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int}
    | {aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.alias.default}
    | {aten.transpose.int, aten.permute.default, aten.t.default, aten.clone.default, aten._to_copy.default}
    | {aten.contiguous.default, aten.movedim.intlist, aten.type_as.default, aten.lift_fresh_copy.default}
    | {aten.broadcast_tensors.default, aten.expand.default, aten.expand_as.default}
)
# Some of the same numbers.
SELECTING: frozenset[OpOverload] = frozenset(
    {aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.index.Tensor, aten.gather.default}
    | {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, aten.index_select.default}
)
# Formulas of a layer with a weight: op -> (argument that flows through, weight).
LAYERS: Mapping[OpOverload, tuple[str, str]] = {
    aten.linear.default: ("input", "weight"),
    aten.addmm.default: ("mat1", "mat2"),
    aten.conv1d.default: ("input", "weight"),
    aten.conv2d.default: ("input", "weight"),
    aten.conv3d.default: ("input", "weight"),
    aten.conv_transpose1d.default: ("input", "weight"),
    aten.conv_transpose2d.input: ("input", "weight"),
    aten.conv_transpose3d.input: ("input", "weight"),
    aten.matmul.default: ("self", "other"),
    aten.mm.default: ("self", "mat2"),
}
NORMS: frozenset[OpOverload] = frozenset(
    {aten.layer_norm.default, aten.group_norm.default, aten.instance_norm.default, aten.batch_norm.default}
    | {aten.rms_norm.default, aten._native_batch_norm_legit_functional.default}
    | {aten._native_batch_norm_legit.default, aten._native_batch_norm_legit.no_stats}
    | {aten._native_batch_norm_legit_no_training.default, aten.native_batch_norm.default}
)
# Ops that read only the shape of their argument.
SHAPED_LIKE = frozenset(
    {aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.rand_like, aten.randn_like}
    | {aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty}
)
# Losses that compare a prediction with a target: op -> (prediction, target).
LOSSES: Mapping[OpOverload, tuple[str, str]] = {
    aten.cross_entropy_loss.default: ("self", "target"),
    aten.nll_loss_nd.default: ("self", "target"),
    aten.nll_loss.default: ("self", "target"),
    aten.nll_loss2d.default: ("self", "target"),
    aten.binary_cross_entropy.default: ("self", "target"),
    aten.binary_cross_entropy_with_logits.default: ("self", "target"),
    aten.kl_div.default: ("self", "target"),
    aten.mse_loss.default: ("self", "target"),
    aten.l1_loss.default: ("self", "target"),
    aten.smooth_l1_loss.default: ("self", "target"),
    aten.huber_loss.default: ("self", "target"),
    aten.poisson_nll_loss.default: ("input", "target"),
}
REGRESSIONS: frozenset[OpOverload] = frozenset(
    {aten.mse_loss.default, aten.l1_loss.default, aten.smooth_l1_loss.default, aten.huber_loss.default}
)


@dataclass(frozen=True, eq=False)
class Flow:
    """Who makes and who uses each value of a graph; `values` are those of an evaluation of it."""

    graph: Graph
    values: Mapping[str, Value]

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each leaf or node."""
        users: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for name in dict.fromkeys(ref.name for ref in node.refs()):
                users.setdefault(name, []).append(node)
        return users

    @cached_property
    def active(self) -> set[Ref]:
        """Values on which a trainable parameter has an influence that a gradient can carry."""
        return active_values(self.graph)

    @cached_property
    def from_batch(self) -> set[str]:
        """Names of the values that are computed from numbers of the batch, not only made in its shape."""
        names = {name for name, leaf in self.graph.leaves.items() if leaf.kind == "batch"}
        for node in self.graph.nodes:
            if node.op.overloadpacket not in SHAPED_LIKE and any(ref.name in names for ref in node.refs()):
                names.add(node.name)
        return names

    def value(self, ref: Ref) -> Tensor:
        """The tensor that a `Ref` names."""
        tensor: Tensor = value_of(ref, self.values)
        return tensor

    def maker(self, ref: Ref, *, through: Collection[OpOverload] = REARRANGING) -> Node | Leaf:
        """The node or leaf that computes the numbers of `ref`, the ops of `through` passed by."""
        while ref.name in self.nodes:
            node = self.nodes[ref.name]
            if node.op not in through or (before := passed(node, ref)) is None:
                return node
            ref = before
        return self.graph.leaves[ref.name]

    def takers(self, node: Node, *, through: Collection[OpOverload] = REARRANGING) -> Iterator[Node]:
        """The nodes that use the node's output, the ops of `through` passed by."""
        for user in self.users.get(node.name, ()):
            if user.op in through:
                yield from self.takers(user, through=through)
            else:
                yield user

    def losses(self) -> Iterator[tuple[Node, Ref, Ref]]:
        """(loss node, prediction, target) of every known loss whose prediction depends on a parameter."""
        for node in self.graph.nodes:
            if node.op in LOSSES:
                prediction, target = (node.arguments[name] for name in LOSSES[node.op])
                if isinstance(prediction, Ref) and isinstance(target, Ref):
                    prediction, target = self.unpaired(prediction), self.unpaired(target)
                    if prediction in self.active:
                        yield node, prediction, target

    def unpaired(self, ref: Ref) -> Ref:
        """What a loss function was given before it brought prediction and target to one shape."""
        node = self.nodes.get(ref.name)
        before = passed(node, ref) if node is not None and node.op is aten.broadcast_tensors.default else None
        return before or ref

    def layers(self) -> Iterator[tuple[Node, Ref, Ref]]:
        """(node, what flows in, weight) of every layer whose weight is no activation."""
        for node in self.graph.nodes:
            if node.op in LAYERS:
                inflow, weight = (node.arguments[name] for name in LAYERS[node.op])
                if isinstance(inflow, Ref) and isinstance(weight, Ref) and self.is_weight(weight):
                    yield node, inflow, weight

    def is_weight(self, ref: Ref) -> bool:
        """True for a trainable parameter, or what is computed from parameters and not from the batch."""
        return ref in self.active and ref.name not in self.from_batch and self.value(ref).dim() >= 2

    def parameter(self, ref: Ref) -> str:
        """The parameter behind a weight, through formulas such as a transposition or a weight norm; "" if unclear."""
        names = {
            leaf.path for name in self.ancestors(ref.name) if (leaf := self.graph.leaves.get(name)) and leaf.trainable
        }
        return next(iter(sorted(names)), "")

    def ancestors(self, name: str) -> set[str]:
        """The names of everything that a value is computed from, itself included."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                if current in self.nodes:
                    waiting += [ref.name for ref in self.nodes[current].refs()]
        return seen


def adjoints_above(graph: Graph, values: Mapping[str, Value], names: Collection[str]) -> dict[Ref, Tensor]:
    """dL/dv of these nodes' outputs, by the chain rule over the part of the graph that is computed from them."""
    leaves = {name: Leaf(name, "parameter", values[name], trainable=True) for name in names}
    return reverse(replace(graph, leaves=leaves, nodes=tuple(downstream(graph, names))), values)


def downstream(graph: Graph, names: Collection[str]) -> Iterator[Node]:
    """The nodes that are computed from one of these, in order."""
    reached = set(names)
    for node in graph.nodes:
        if any(ref.name in reached for ref in node.refs()):
            reached.add(node.name)
            yield node


def passed(node: Node, ref: Ref) -> Ref | None:
    """The argument whose numbers the output `ref` of a rearranging or selecting node holds; None if there is none."""
    refs = list(refs_in(next(iter(node.arguments.values()))))
    if node.op is aten.broadcast_tensors.default:
        return refs[ref.index or 0]
    return refs[0] if refs else None
