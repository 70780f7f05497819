"""The part of a graph that a moved value influences; what comes before it is kept from the base evaluation.

A perturbed leaf or activation changes only the nodes after it. `Suffix` runs just those: once, with the very ops of a
full evaluation, or for N perturbations at a time (`batched`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import run_node, value_of
from chainrule.autodiff.reverse import output_refs
from chainrule.compare.batched import Forms, run_batched
from chainrule.compare.narrow import run_rows
from chainrule.compare.rows import Rows, widen
from chainrule.derivatives import FLAT
from chainrule.graph import Graph, Node, Ref, Spec, Value


class Suffix:
    """The loss as a function of some values of the graph, all others held at the base point.

    nodes   what has to be run, in order
    base    values of an evaluation of the whole graph
    frozen  branches (ReLU's mask, max's index ...) are held as they are at the base point
    """

    def __init__(self, nodes: tuple[Node, ...], output: Ref, base: Mapping[str, Value], *, frozen: bool) -> None:
        self.nodes, self.output, self.base, self.frozen = nodes, output, base, frozen

    def loss(self, given: Mapping[Ref, Tensor]) -> Tensor:
        """The loss with some values given; bit for bit that of a full evaluation."""
        values = with_values(self.base, given)
        at = self.base if self.frozen else None
        with torch.no_grad():
            for node in self.nodes:
                values[node.name] = run_node(node, values, at)
        return value_of(self.output, values)  # type: ignore[no-any-return]

    def losses(
        self, given: Mapping[Ref, Tensor], forms: Forms | None = None, rows: Mapping[Ref, Rows] | None = None
    ) -> Tensor:
        """The losses (N,) of N perturbations at a time: each given value has a leading dimension N.

        rows  of the given values that hold but the rows that move, which those are
        """
        rows = rows or {}
        if forms is not None:
            given = {ref: self._whole(ref, value, rows.get(ref)) for ref, value in given.items()}
            rows = {}
        values = with_values(self.base, given)
        many: dict[Ref, Rows | None] = {ref: rows.get(ref) for ref in given}
        at = self.base if self.frozen else None
        with torch.no_grad():
            for node in self.nodes:
                held = None
                if any(many.get(ref) for ref in node.refs()):
                    values[node.name], held = run_rows(node, values, many, self.base, at)
                else:
                    values[node.name] = run_batched(node, values, frozenset(many), at, forms)
                many.update(dict.fromkeys(output_refs(node), held))
        return value_of(self.output, values)  # type: ignore[no-any-return]

    def _whole(self, ref: Ref, value: Tensor, rows: Rows | None) -> Tensor:
        if rows is None:
            return value
        still = value_of(ref, self.base)
        return widen(value, rows, Rows(rows.dim, 0, still.shape[rows.dim]), still.to(value.dtype))


def suffix_of(graph: Graph, moved: tuple[Ref, ...], base: Mapping[str, Value], *, frozen: bool = True) -> Suffix:
    """What the moved values influence."""
    return Suffix(dependents(graph, moved, frozen=frozen), graph.output, base, frozen=frozen)


def dependents(graph: Graph, moved: tuple[Ref, ...], *, frozen: bool = True) -> tuple[Node, ...]:
    """The nodes that lie on a path from the moved values to the loss.

    With frozen branches nothing moves through an op that is flat (a comparison, argmax, detach) or gives no float.
    """
    moving = set(moved)
    after = []
    for node in graph.nodes:
        passes = not frozen or (node.op not in FLAT and is_floating(node))
        if passes and any(ref in moving for ref in node.refs()):
            after.append(node)
            moving.update(ref for ref in output_refs(node) if ref not in moved)
    needed = {graph.output.name}
    kept = []
    for node in reversed(after):
        if node.name in needed:
            kept.append(node)
            needed.update(ref.name for ref in node.refs())
    return tuple(reversed(kept))


def with_values(base: Mapping[str, Value], given: Mapping[Ref, Tensor]) -> dict[str, Value]:
    """The base values with some of them replaced; one of several outputs is replaced inside its tuple."""
    values = dict(base)
    for ref, value in given.items():
        if ref.index is None:
            values[ref.name] = value
        else:
            outputs = list(values[ref.name])
            outputs[ref.index] = value
            values[ref.name] = tuple(outputs)
    return values


def is_floating(node: Node) -> bool:
    """Whether some output of the node is of floating point."""
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    return any(spec is not None and spec.dtype.is_floating_point for spec in specs)
