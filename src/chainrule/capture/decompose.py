"""The functional form of an exported program: each kind of formula is decomposed once, however many layers have it.

`run_decompositions` runs a whole program twice more on fake tensors, which takes two thirds of a capture. What an op
decomposes to depends on the op, its constants and its tensors' layouts alone, as long as nothing writes into a tensor and no
block runs code of its own: then a program with one op of each kind is decomposed, and its parts take the places of the ops.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from chainrule.capture.passes import attention
from chainrule.graph import op_name

PLAIN = {InputKind.USER_INPUT, OutputKind.USER_OUTPUT}


@dataclass(frozen=True, eq=False)
class Part:
    """What a kind of formula decomposes to.

    inputs   what stands for the formula's tensors, in the order of its arguments
    nodes    in order
    outputs  one for each of the formula's
    """

    inputs: Sequence[fx.Node]
    nodes: Sequence[fx.Node]
    outputs: Sequence[fx.Node]


class OneOfEach(nn.Module):
    """Some formulas side by side, as a module of all their tensors."""

    def __init__(self, formulas: Sequence[fx.Node]) -> None:
        super().__init__()
        self.formulas = formulas

    def forward(self, *tensors: Tensor) -> list[Any]:
        """The value of each."""
        supply = iter(tensors)
        filled = (fx.map_arg((node.args, node.kwargs), lambda _: next(supply)) for node in self.formulas)
        ops = (cast(Callable[..., Any], node.target) for node in self.formulas)
        return [op(*args, **kwargs) for op, (args, kwargs) in zip(ops, filled, strict=True)]


def decomposed(program: ExportedProgram) -> tuple[ExportedProgram, fx.Graph]:
    """What `program.run_decompositions({})` gives, and its graph; in less time where nothing is written to.

    The graph may belong to no module; its placeholders and its outputs are those of the program that is returned.
    """
    if all(map(_is_pure, program.graph.nodes)):
        formulas = {_kind(node): node for node in program.graph.nodes if _is_formula(node)}
        parts = _parts(list(formulas.values()))
        if parts is not None:
            return program, _written(program.graph, dict(zip(formulas, parts, strict=True)))
    program = program.run_decompositions({})
    return program, program.graph


def _is_formula(node: fx.Node) -> bool:
    """True for what computes tensors; an assertion, which gives nothing, is none."""
    return node.op == "call_function" and node.target is not operator.getitem and node.meta.get("val") is not None


def _is_pure(node: fx.Node) -> bool:
    """False for what writes, runs code of its own, or gives a size that depends on numbers."""
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
        return False
    known = isinstance(node.target, OpOverload) or node.target in (operator.getitem, attention)
    return known and (node.meta.get("val") is None or all(map(_is_plain, pytree.tree_leaves(node.meta["val"]))))


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and all(type(n) is int for n in (*value.shape, *value.stride()))


def _kind(node: fx.Node) -> str:
    """Equal for formulas that decompose alike; in letters, since 1, 1.0 and True are equal and hash alike."""
    return repr((node.target, fx.map_arg((node.args, node.kwargs), _layout)))


def _layout(node: fx.Node) -> tuple[Any, ...]:
    return (*_form(node.meta["val"]), node.meta["val"].requires_grad)


def _form(value: Any) -> tuple[Any, ...]:
    return (value.dtype, value.device, value.shape, value.stride())


def _tensors(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order; one that stands there twice comes twice."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _parts(formulas: Sequence[fx.Node]) -> list[Part] | None:
    """What each decomposes to.

    None if one writes into its tensors after all, keeps a constant of its own, or gives another layout by itself.
    """
    tensors = tuple(_alike(tensor.meta["val"]) for node in formulas for tensor in _tensors(node))
    program = torch.export.export(OneOfEach(formulas), tensors, strict=False).run_decompositions({})
    signature = program.graph_signature
    if {spec.kind for spec in (*signature.input_specs, *signature.output_specs)} - PLAIN:
        return None
    parts = list(_cut(program.graph, formulas))
    as_it_was = all(_fits(part, formula) for part, formula in zip(parts, formulas, strict=True))
    return parts if as_it_was else None


def _fits(part: Part, formula: fx.Node) -> bool:
    """Attention may take another kernel where a mask needs no gradient; what follows was traced on the other's layout."""
    outputs = [output.meta["val"] for output in part.outputs]
    return list(map(_form, outputs)) == list(map(_form, pytree.tree_leaves(formula.meta["val"])))


def _alike(value: FakeTensor) -> Tensor:
    """Another tensor of the same layout: two places that are given one tensor would become one."""
    with value.fake_mode:
        other = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return other.requires_grad_(value.requires_grad)


def _cut(graph: fx.Graph, formulas: Sequence[fx.Node]) -> Iterator[Part]:
    nodes = list(graph.nodes)
    inputs = iter([node for node in nodes if node.op == "placeholder"])
    outputs = iter(nodes[-1].args[0])
    for formula in formulas:
        own_inputs = [next(inputs) for _ in _tensors(formula)]
        own_outputs = [next(outputs) for _ in pytree.tree_leaves(formula.meta["val"])]
        reached = set(own_outputs)
        for node in reversed(nodes[:-1]):
            if node in reached:
                reached.update(node.all_input_nodes)
        yield Part(own_inputs, [node for node in nodes if node in reached - set(own_inputs)], own_outputs)


def _written(graph: fx.Graph, parts: Mapping[str, Part]) -> fx.Graph:
    """The graph with the parts in the place of the formulas, each with its formula's module and source line."""
    written = fx.Graph()
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = written.node_copy(node)
        elif node.op == "output":
            written.output(fx.map_arg(node.args[0], values.__getitem__))
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif _is_formula(node):
            inputs = [values[tensor] for tensor in _tensors(node)]
            outputs = _copied(written, node, parts[_kind(node)], inputs)
            values[node] = outputs[0] if isinstance(node.meta["val"], Tensor) else outputs
    return written


def _copied(graph: fx.Graph, formula: fx.Node, part: Part, inputs: Sequence[fx.Node]) -> list[fx.Node]:
    values = dict(zip(part.inputs, inputs, strict=True))
    for node in part.nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        name = op_name(node.target) if isinstance(node.target, OpOverload) else "output"
        values[node] = graph.create_node("call_function", node.target, args, kwargs, name)
        values[node].meta = {**formula.meta, "val": node.meta.get("val")}
    return [values[output] for output in part.outputs]
