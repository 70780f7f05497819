"""Whose backward is wrong: of the formulas that use a value, the one that explains the residual; and a third opinion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import run_node, value_of
from chainrule.autodiff.reverse import output_refs, pull_back
from chainrule.compare.residual import Residual, double
from chainrule.derivatives import FLAT
from chainrule.graph import Graph, Node, Ref, Value
from chainrule.numdiff.noise import measure_noise
from chainrule.numdiff.stencils import Estimate, order8
from chainrule.numdiff.steps import relative_step


@dataclass(frozen=True, eq=False)
class Stretch:
    """What lies between a value and the next recorded values above it: one formula, or the inside of a custom Function."""

    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]


def guilty(residual: Residual, values: Mapping[str, Value], recorded: Mapping[Ref, Tensor]) -> Node | None:
    """The consumer to blame: one inside a custom Function; else the one whose share of the gradient fits the residual best."""
    consumers = residual.consumers
    custom = [node for node in consumers if node.function]
    if custom or len(consumers) < 2:
        return next(iter(custom or consumers), None)
    difference = residual.recorded - residual.expected
    return max(consumers, key=lambda node: _fit(node, residual.ref, difference, values, recorded))


def _fit(
    node: Node, ref: Ref, difference: Tensor, values: Mapping[str, Value], recorded: Mapping[Ref, Tensor]
) -> float:
    """|cos| of the angle between the residual and what this consumer contributes."""
    exact = {name: double(values[name]) for name in {node.name, *(r.name for r in node.refs())}}
    arriving = {r: double(recorded[r]) for r in output_refs(node) if r in recorded}
    if not arriving or node.op in FLAT:
        return 0.0
    share = sum((g for r, g in pull_back(node, exact, arriving) if r == ref), torch.zeros_like(difference))
    sizes = float(share.norm() * difference.norm())
    return abs(float((share * difference).sum())) / sizes if sizes else 0.0


def stretch_above(graph: Graph, ref: Ref, recorded: Mapping[Ref, Tensor]) -> Stretch:
    """The nodes that carry `ref` to the next values with a recorded adjoint, and those values."""
    reached, nodes, outputs = {ref}, [], []
    for node in graph.nodes:
        if any(argument in reached for argument in node.refs()):
            nodes.append(node)
            for output in output_refs(node):
                if output in recorded:
                    outputs.append(output)
                else:
                    reached.add(output)
    return Stretch(tuple(nodes), tuple(outputs))


def numerical_entry(
    graph: Graph, values: Mapping[str, Value], recorded: Mapping[Ref, Tensor], ref: Ref, index: tuple[int, ...]
) -> Estimate:
    """Σ_y ⟨ȳ, ∂y/∂x[index]⟩ by order-8 differences of the stretch alone, float64, branches held: no calculus at all."""
    stretch = stretch_above(graph, ref, recorded)
    names = {r.name for node in stretch.nodes for r in node.refs()} | {node.name for node in stretch.nodes}
    base = {name: double(values[name]) for name in names | {ref.name}}
    weights = {output: double(recorded[output]) for output in stretch.outputs}

    def at(offset: float) -> float:
        moved = {**base, ref.name: _nudged(base[ref.name], ref, index, offset)}
        for node in stretch.nodes:
            moved[node.name] = run_node(node, moved, base)
        return float(sum((weight * value_of(output, moved)).sum() for output, weight in weights.items()))

    def line(offsets: Tensor) -> Tensor:
        return torch.tensor([at(float(offset)) for offset in offsets.flatten()], dtype=torch.float64).view(
            offsets.shape
        )

    h = relative_step(value_of(ref, base)).h
    return order8(line, h, measure_noise(line, spacing=1e-7 * h / 0.02).level)


def _nudged(value: Value, ref: Ref, index: tuple[int, ...], offset: float) -> Value:
    if ref.index is not None:
        return tuple(
            _nudged(part, Ref(ref.name), index, offset) if i == ref.index else part for i, part in enumerate(value)
        )
    moved = value.clone()
    moved[index] += offset
    return moved
