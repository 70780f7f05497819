"""An op that has no derivative rule, written out in smaller ops: that op only, the rest of the graph stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from chainrule.capture.nodes import convert
from chainrule.graph import Argument, Graph, Node, Ref, Spec


def expand(graph: Graph, known: Container[OpOverload]) -> Graph:
    """The same graph with every node of an unknown op replaced by the ops that PyTorch decomposes it to, if it does.

    A node that cannot be decomposed, or only to itself, stays. Names of the new nodes begin with the old node's.
    """
    if all(_stays(node, known) for node in graph.nodes):
        return graph
    moved: dict[Ref, Ref] = {}
    nodes: list[Node] = []
    specs = _specs(graph)
    for node in graph.nodes:
        node = replace(node, arguments={name: _moved(value, moved) for name, value in node.arguments.items()})
        parts = None if _stays(node, known) else _decomposed(node, specs)
        if parts is None:
            nodes.append(node)
            specs[node.name] = node.spec
            continue
        new, outputs = parts
        nodes += new
        specs |= {part.name: part.spec for part in new}
        moved |= dict(zip(_outputs(node), outputs, strict=True))
    mutated = {path: moved.get(ref, ref) for path, ref in graph.mutated.items()}
    return replace(graph, nodes=tuple(nodes), output=moved.get(graph.output, graph.output), mutated=mutated)


def grouped_mm(self_NK: Tensor, mat2_EKM: Tensor, offs_E: Tensor) -> Tensor:
    """Each group of rows times its own matrix: all rows times all matrices, of which a mask keeps each row's own."""
    if (self_NK.dim(), mat2_EKM.dim()) != (2, 3):
        raise NotImplementedError("only rows in groups, each with a matrix of its own, are written out")
    before_EN = torch.arange(self_NK.shape[0], device=offs_E.device) < offs_E[:, None]
    earlier_EN = torch.cat((torch.zeros_like(before_EN[:1]), before_EN[:-1]))
    own_ENM = (before_EN & ~earlier_EN)[:, :, None]
    return torch.where(own_ENM, self_NK @ mat2_EKM, 0.0).sum(0)


# Kernels that refuse float64, written out here; by name, for a library's op exists only once the library is imported.
WRITTEN_OUT: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"aten::_grouped_mm": grouped_mm, "transformers::grouped_mm_fallback": grouped_mm}
)


def _stays(node: Node, known: Container[OpOverload]) -> bool:
    return node.op in known and node.op._schema.name not in WRITTEN_OUT


def _run(node: Node, arguments: Mapping[str, Any]) -> Any:
    """The op, or what is written here for it; that takes the tensors alone, in the schema's order."""
    written = WRITTEN_OUT.get(node.op._schema.name)
    if written is None:
        return node.op(**arguments)
    return written(*(value for value in arguments.values() if isinstance(value, Tensor)))


def _decomposed(node: Node, specs: Mapping[str, Any]) -> tuple[list[Node], list[Ref]] | None:
    refs = list(dict.fromkeys(node.refs()))
    inputs = [_like(specs, ref) for ref in refs]

    def run(*tensors: Tensor) -> Any:
        given = dict(zip(refs, tensors, strict=True))
        result = _run(node, {name: _filled(value, given) for name, value in node.arguments.items()})
        return list(result) if isinstance(result, (tuple, list)) else [result]

    try:
        traced = make_fx(functionalize(run), decomposition_table=dict(core_aten_decompositions()), tracing_mode="fake")(
            *inputs
        )
        placeholders = [n.name for n in traced.graph.nodes if n.op == "placeholder"]
        places = dict(zip(placeholders, refs, strict=True))
        converted = convert(traced.graph, places, rename=lambda name: f"{node.name}_{name}")
    except Exception:  # a decomposition may refuse for any reason of its own; the node then stays whole and is reported
        return None
    outputs = list(converted.outputs[0]) if isinstance(converted.outputs[0], tuple) else list(converted.outputs)
    if any(part.op is node.op for part in converted.nodes) or not all(isinstance(ref, Ref) for ref in outputs):
        return None
    new = [replace(p, stack=node.stack, source=node.source, function=node.function) for p in converted.nodes]
    return new, outputs


def _specs(graph: Graph) -> dict[str, Any]:
    return {name: Spec(tuple(leaf.value.shape), leaf.value.dtype) for name, leaf in graph.leaves.items()}


def _like(specs: Mapping[str, Any], ref: Ref) -> Tensor:
    spec = specs[ref.name] if ref.index is None else specs[ref.name][ref.index]
    return torch.empty(spec.shape, dtype=spec.dtype)


def _outputs(node: Node) -> list[Ref]:
    if isinstance(node.spec, Spec):
        return [Ref(node.name)]
    return [Ref(node.name, index) for index in range(len(node.spec))]


def _moved(argument: Argument, moved: Mapping[Ref, Ref]) -> Argument:
    if isinstance(argument, Ref):
        return moved.get(argument, argument)
    return tuple(_moved(item, moved) for item in argument) if isinstance(argument, tuple) else argument


def _filled(argument: Argument, given: Mapping[Ref, Tensor]) -> Any:
    if isinstance(argument, Ref):
        return given[argument]
    return [_filled(item, given) for item in argument] if isinstance(argument, tuple) else argument
