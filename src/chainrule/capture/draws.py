"""Randomness as data: every random draw of the graph is made once and becomes a leaf.

The draws are made in the order of the graph, by the ops that the model itself calls, on tensors laid out in memory as
the model's are: on the CPU the same seed gives the masks of the user's own run.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket

from chainrule.capture.hidden import off_sentence
from chainrule.capture.nodes import RECURRENT
from chainrule.capture.nodes import is_random as is_random
from chainrule.capture.running import ancestors, renamed, resolve, run
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Leaf, Node, Ref, Spec, Value, bind_arguments, op_name, refs_in

aten = torch.ops.aten


def _overloads(op: OpOverloadPacket) -> list[OpOverload]:
    return [getattr(op, name) for name in op.overloads()]  # type: ignore[no-untyped-call]


# Ops that read only shape, layout and dtype of their argument `self`.
_LAYOUT_ONLY = frozenset(
    {aten.bernoulli.p, aten.bernoulli.Tensor, aten.exponential.default, aten.geometric.default, aten.cauchy.default}
    | {aten.log_normal.default, aten.uniform.default, aten.normal_functional.default}
    | {
        overload
        for op in (aten.random, aten.rand_like, aten.randn_like, aten.randint_like)
        for overload in _overloads(op)
    }
)
# Draws through which a gradient flows; as a leaf they would cut it.
_PATHWISE = frozenset(
    {aten._standard_gamma.default, aten._sample_dirichlet.default, aten.rrelu.default}
    | {aten.rrelu_with_noise.default, aten.rrelu_with_noise_functional.default}
)


@dataclass
class Drawing:
    """Replaces random ops by leaves, node by node, in order.

    leaves   of the graph so far, the draws among them
    layouts  a (fake) tensor with the memory layout of each node's output, by name; a tuple for several outputs
    """

    leaves: dict[str, Leaf]
    layouts: dict[str, Value]
    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _values: dict[str, Value] = field(default_factory=dict)
    _moved: dict[Ref, Ref] = field(default_factory=dict)

    def draw(self, nodes: Iterable[Node]) -> None:
        """Add the nodes, each random one replaced by a draw from the global generators.

        Raises CaptureError for a draw through which a gradient flows (gamma, Dirichlet, randomised leaky ReLU).
        """
        for node in nodes:
            node = renamed(node, self._moved)
            if node.op in _PATHWISE and node.arguments.get("training", True):
                raise CaptureError(
                    f"{node.source or node.where}: {op_name(node.op)} draws numbers that depend smoothly on its input; "
                    "chainrule cannot hold such a draw fixed. Take it out for the check, or draw it outside the model"
                )
            if node.op in RECURRENT and node.arguments["dropout"] and node.arguments["train"]:
                self._without_dropout(node)
            elif node.op is aten.native_dropout.default:
                self._dropout(node)
            elif is_random(node.op) and node.op not in _PATHWISE:
                recipe = self._recipe(node)
                self._leaf(recipe, node.arguments.get("generator"))
            else:
                self.nodes.append(node)

    def moved(self, ref: Ref) -> Ref:
        """Where a value of the original nodes is now."""
        return self._moved.get(ref, ref)

    def drawn_from(self, name: str) -> Iterable[Ref]:
        """The constants that a random leaf's recipe reads; nothing for another leaf or a node."""
        leaf = self.leaves.get(name)
        return () if leaf is None or leaf.recipe is None else leaf.recipe.refs()

    def _without_dropout(self, node: Node) -> None:
        self.nodes.append(replace(node, arguments={**node.arguments, "dropout": 0.0}))
        self.notes.append(off_sentence(node.where, node.arguments["dropout"]))

    def _dropout(self, node: Node) -> None:
        """dropout(x) = x · mask, with mask = dropout(1), zeros and 1 / (1 - p)."""
        source, p = node.arguments["input"], node.arguments["p"]
        spec = node.spec[0] if isinstance(node.spec, tuple) else node.spec
        assert spec is not None
        ones = self._constant_like(self._layout(source), 1)
        recipe = replace(
            node, op=aten.dropout.default, arguments={"input": Ref(ones), "p": p, "train": True}, spec=spec
        )
        mask = f"{node.name}_mask"
        self._leaf(replace(recipe, name=mask))
        self._append(node, aten.mul.Tensor, (source, Ref(mask)), spec)
        self._moved[Ref(node.name, 0)] = Ref(node.name)
        kept = replace(node, name=f"{node.name}_kept")
        self._append(kept, aten.ne.Scalar, (Ref(mask), 0), replace(spec, dtype=torch.bool))
        self._moved[Ref(node.name, 1)] = Ref(kept.name)

    def _append(self, node: Node, op: OpOverload, args: tuple[Argument, ...], spec: Spec) -> None:
        self.nodes.append(replace(node, op=op, arguments=bind_arguments(op, args, {}), spec=spec))

    def _recipe(self, node: Node) -> Node:
        """The node with constants in place of what it refers to, and no generator, so that it can be drawn again."""
        arguments = {name: None if name == "generator" else value for name, value in node.arguments.items()}
        for name, argument in arguments.items():
            if isinstance(argument, Ref):
                layout_only = name == "self" and node.op in _LAYOUT_ONLY
                constant = self._constant_like(self._layout(argument), 0) if layout_only else self._snapshot(argument)
                arguments[name] = Ref(constant)
        return replace(node, arguments=arguments)

    def _leaf(self, recipe: Node, generator: torch.Generator | None = None) -> None:
        """Draw once, by the user's own generator if the model passed one, and keep the draw under the recipe's name."""
        values = {ref.name: self.leaves[ref.name].value for ref in recipe.refs()}
        drawn_by = {"generator": generator} if generator is not None else {}
        value = run(replace(recipe, arguments={**recipe.arguments, **drawn_by}), values)
        self.leaves[recipe.name] = Leaf(recipe.name, "random", value, (recipe.name,), recipe=recipe)

    def _layout(self, argument: Argument) -> Tensor:
        leaves = {ref.name: self.leaves[ref.name].value for ref in refs_in(argument) if ref.name in self.leaves}
        layout: Tensor = resolve(argument, ChainMap(leaves, self.layouts))
        return layout

    def _constant_like(self, layout: Tensor, number: int) -> str:
        """Name of a constant leaf of equal numbers with this layout; dense ones share a single number's memory."""
        value = torch.full((), number, dtype=layout.dtype, device=layout.device).expand(layout.shape)
        if not layout.is_contiguous():
            value = torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype, device=layout.device).copy_(
                value
            )
        stride = "_".join(map(str, (*layout.shape, "by", *layout.stride())))
        name = f"all_{number}_{stride}_{str(layout.dtype).removeprefix('torch.')}"
        self.leaves.setdefault(name, Leaf(name, "constant", value, (name,)))
        return name

    def _snapshot(self, ref: Ref) -> str:
        """Name of a constant leaf with the value that the graph computes for `ref`."""
        for name, leaf in self.leaves.items():
            self._values.setdefault(name, leaf.value)
        with torch.no_grad():
            for node in ancestors(self.nodes, [ref]):
                if node.name not in self._values:
                    self._values[node.name] = run(node, self._values)
        name = f"{ref.name}_drawn_from" if ref.index is None else f"{ref.name}_{ref.index}_drawn_from"
        self.leaves[name] = Leaf(name, "constant", resolve(ref, self._values), (name,))
        return name
