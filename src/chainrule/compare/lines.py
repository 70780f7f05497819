"""The loss along lines through the base point: what the stencils of `numdiff` are applied to.

A line moves some values of the graph (leaves, or a node's output) by t · e. Behind the moved values lie

    the linear region   ops that are linear in what moves: the tangent e goes through them once, for all t
    the curved region   the rest: evaluated for every t, many lines at a time, with branches held at the base point

and everything before them stays as it was at the base point. Dimension key: K lines, S offsets, C basis tangents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import value_of
from chainrule.autodiff.reverse import output_refs
from chainrule.compare.batched import Forms, no_vmap_fallback
from chainrule.compare.linear_region import LinearStep, linear_step
from chainrule.compare.pencil import Pencil, find_pencils, mixed
from chainrule.compare.rows import Rows, moving_rows
from chainrule.compare.suffix import Suffix, dependents
from chainrule.graph import Graph, Node, Ref, Value
from chainrule.numdiff.directions import standard_normal
from chainrule.numdiff.noise import measure_noise
from chainrule.numdiff.stencils import Line
from chainrule.numdiff.steps import rms


class LossLines:
    """The loss along any lines in the given values of a graph.

    moved    what the lines move: leaves or outputs of nodes, all float64
    base     values of an evaluation of the graph
    linear   steps of the linear region, in order
    curved   nodes of the curved region, in order
    meeting  values of the linear region that the curved region uses
    """

    def __init__(self, graph: Graph, moved: tuple[Ref, ...], base: Mapping[str, Value], *, frozen: bool = True) -> None:
        self.moved = moved
        self.base = base
        self.linear, curved = split(dependents(graph, moved, frozen=frozen), moved, base)
        still_linear = {ref for step in self.linear for ref in output_refs(step.node)} | set(moved)
        used = {ref for node in curved for ref in node.refs()} | {graph.output}
        self.meeting = tuple(sorted(still_linear & used, key=str))
        self._leaves = frozenset(graph.leaves)
        self.pencils = find_pencils(curved, frozenset(still_linear), base)
        self._suffix = Suffix(_without(curved, self.pencils), graph.output, base, frozen=frozen)

    def moving_rows(self, ref: Ref, tangent_C: Tensor) -> Rows | None:
        """The rows of an activation in which the lines move it, if they are not all; no others need be computed."""
        return None if ref.name in self._leaves or ref.index is not None else moving_rows(tangent_C)

    @property
    def widest(self) -> int:
        """Entries of the largest tensor that one evaluation makes."""
        sizes = [value_of(ref, self.base).numel() for ref in self.meeting]
        for node in self._suffix.nodes:
            outputs = self.base[node.name]
            sizes += [
                x.numel() for x in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(x, Tensor)
            ]
        return max(sizes, default=1)

    def prepare(self, basis: Mapping[Ref, Tensor]) -> Lines:
        """C basis directions, (C, *shape) for each moved value, brought through the linear region."""
        tangents = dict(basis)
        for step in self.linear:
            tangents.update(_all_tangents(step, tangents))
        return Lines(self, {ref: tangents[ref] for ref in self.meeting})

    def losses(self, given: Mapping[Ref, Tensor], forms: Forms | None, rows: Mapping[Ref, Rows]) -> Tensor:
        """Losses (N,) for N values each of what the curved region is given."""
        return self._suffix.losses(given, forms, rows)


class Lines:
    """Prepared basis tangents; `line` gives the loss along combinations of them."""

    def __init__(self, owner: LossLines, tangents: Mapping[Ref, Tensor]) -> None:
        self._owner = owner
        self._rows = {ref: rows for ref, tangent in tangents.items() if (rows := owner.moving_rows(ref, tangent))}
        self._tangents = {ref: self._narrowed(ref, tangent) for ref, tangent in tangents.items()}
        for pencil in owner.pencils:
            for user in pencil.users:
                if pencil.input in self._rows:
                    self._rows[Ref(user.name)] = self._rows[pencil.input]
        self._pencils = [
            pencil.prepare(self._tangents[pencil.input], self._rows.get(pencil.input)) for pencil in owner.pencils
        ]

    def line(self, mix_KC: Tensor | None = None, forms: Forms | None = None) -> Line:
        """The loss along K lines, line k in direction Σ_c mix[k, c] basis_c; without mix, along the basis itself.

        The result takes offsets (S, K) or, for one line, (S,), and returns losses in that shape.
        """

        def losses(offsets: Tensor) -> Tensor:
            t_SK = offsets if offsets.dim() == 2 else offsets[:, None]
            losses = self._owner.losses(self._given(t_SK, mix_KC), forms, self._rows)
            return (losses if losses.dim() else losses.expand(offsets.numel())).reshape(offsets.shape)

        return losses

    def _given(self, t_SK: Tensor, mix_KC: Tensor | None) -> dict[Ref, Tensor]:
        given = {}
        for ref, tangent_C in self._tangents.items():
            tangent_K = mixed(mix_KC, tangent_C)
            base = value_of(ref, self._owner.base)
            still = self._rows[ref].of(base) if ref in self._rows else base
            t = t_SK.reshape(*t_SK.shape, *[1] * base.dim())
            given[ref] = (still + t * tangent_K).flatten(0, 1)
        for prepared in self._pencils:
            given.update(prepared.outputs(t_SK, mix_KC))
        return given

    def _narrowed(self, ref: Ref, tangent_C: Tensor) -> Tensor:
        rows = self._rows.get(ref)
        return tangent_C if rows is None else rows.at(rows.dim + 1).of(tangent_C)


def split(
    nodes: tuple[Node, ...], moved: tuple[Ref, ...], base: Mapping[str, Value]
) -> tuple[tuple[LinearStep, ...], tuple[Node, ...]]:
    """The linear region, as steps, and the nodes of the curved region."""
    generator = torch.Generator().manual_seed(0)  # for trying out that what is declared linear is linear
    straight, bent = set(moved), set()
    steps, curved = [], []
    for node in nodes:
        moving = frozenset(ref for ref in node.refs() if ref in straight)
        step = None if any(ref in bent for ref in node.refs()) else linear_step(node, moving, base, generator)
        outputs = [ref for ref in output_refs(node) if ref not in moved]
        if step is None:
            curved.append(node)
            bent.update(outputs)
        else:
            steps.append(step)
            straight.update(outputs)
    return tuple(steps), tuple(curved)


def _all_tangents(step: LinearStep, tangents: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
    """The step for all C basis tangents, by torch.vmap or by a loop."""
    moving = {ref: tangents[ref] for ref in step.moving}
    try:
        with no_vmap_fallback():
            return torch.vmap(step)(moving)
    except RuntimeError:  # no batching rule
        count = next(iter(moving.values())).shape[0]
        each = [step({ref: part[c] for ref, part in moving.items()}) for c in range(count)]
    return {ref: torch.stack([one[ref] for one in each]) for ref in each[0]}


def _without(nodes: tuple[Node, ...], pencils: tuple[Pencil, ...]) -> tuple[Node, ...]:
    covered = {name for pencil in pencils for name in pencil.covers}
    return tuple(node for node in nodes if node.name not in covered)


def graph_noise(graph: Graph, base: Mapping[str, Value]) -> tuple[float, int]:
    """Standard deviation of the loss's rounding noise near the base point, and the evaluations spent on it.

    Measured along one random direction in all parameters, each moved in proportion to its size.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {Ref(leaf.name): base[leaf.name] for leaf in graph.leaves.values() if leaf.trainable}
    direction = {
        ref: standard_normal(tensor.shape, generator).mul_(rms(tensor) or 1.0) for ref, tensor in tensors.items()
    }
    suffix = Suffix(dependents(graph, tuple(tensors)), graph.output, base, frozen=True)

    def at(t: float) -> Tensor:
        return suffix.loss({ref: torch.add(x, direction[ref], alpha=t) for ref, x in tensors.items()})

    def line(offsets: Tensor) -> Tensor:
        return torch.stack([at(t) for t in offsets.tolist()])

    noise = measure_noise(line)
    return noise.level, noise.evaluations
