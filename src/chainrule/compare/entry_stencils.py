"""Stencils along many entries of a parameter, a chunk of lines at a time, with a bar for every entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import value_of
from chainrule.compare.batched import Forms
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.lines import LossLines
from chainrule.graph import Graph
from chainrule.numdiff.directions import COUNT, error_bound, standard_normal
from chainrule.numdiff.stencils import CENTRAL, ORDER_8, PLAIN_CENTRAL, Estimate, Line, Stencil, apply, better, order8
from chainrule.numdiff.steps import LONGEST, rms, second_step

REQUIRED = 1e-6
# Entries of the largest tensor that a chunk of lines makes: 2 MB in float64, so that several stay in the cache.
CHUNK_NUMEL = 2**18
FEW = 64  # entries; for more the central difference's error is bounded along directions, at 64 evaluations in all


def order8_entries(
    source: EntryLines, indices: Tensor, h: float, noise: float, *, required: float | None = REQUIRED
) -> Estimate:
    """Order-8 differences of K entries; where the bar misses `required` · rms, once more at the step that suits it."""
    steps = torch.full((len(indices),), h, dtype=torch.float64)
    first = stencil_entries(source, indices, ORDER_8, steps, noise)
    if required is None or first.bar is None:
        return first
    other = second_step(first, ORDER_8)
    again = (first.bar > required * rms(first.value)) & (other != first.h)
    if not bool(again.any()):
        return first
    second = stencil_entries(source, indices[again], ORDER_8, other[again], noise)
    best = better(_subset(first, again), second)
    return _merged(first, again, best, first.evaluations + second.evaluations)


def central_entries(graph: Graph, source: EntryLines, indices: Tensor, h: float, noise: float) -> Estimate:
    """Central differences. A few entries spend 4 evaluations, for a bar each; many spend 2 and share one bar.

    That bar is the chi-square bound on the norm of all errors together, from 8 random directions over these entries.
    """
    steps = torch.full((len(indices),), h, dtype=torch.float64)
    if len(indices) <= FEW:
        return stencil_entries(source, indices, CENTRAL, steps, noise)
    estimate = stencil_entries(source, indices, PLAIN_CENTRAL, steps, noise)
    bound = norm_bound(LossLines(graph, (source.ref,), source.base), indices, estimate.value, noise)
    spent = estimate.evaluations + 8 * COUNT
    return replace(estimate, bar=torch.full_like(estimate.value, bound), evaluations=spent)


def norm_bound(lines: LossLines, indices: Tensor, gradient: Tensor, noise: float) -> float:
    """The bound on the Euclidean norm of all errors of a gradient (K,) of entries of the one value that the lines move.

    From slopes of the loss along 8 random directions over these entries, end to end: 64 evaluations, 99.9 % confidence.
    """
    (ref,) = lines.moved
    tensor = value_of(ref, lines.base)
    generator = torch.Generator().manual_seed(0)
    step = torch.tensor([LONGEST * (rms(tensor) or 1.0)], dtype=torch.float64)
    errors, bars = [], []
    for _ in range(COUNT):
        v = standard_normal((len(indices),), generator)
        direction = torch.zeros_like(tensor).view(-1).index_put((indices,), v).view(1, *tensor.shape)
        slope = order8(lines.prepare({ref: direction}).line(), step, noise)
        assert slope.bar is not None
        errors.append(float(gradient @ v - slope.value))
        bars.append(float(slope.bar))
    return error_bound(torch.tensor(errors, dtype=torch.float64), torch.tensor(bars, dtype=torch.float64)).bound


def stencil_entries(source: EntryLines, indices: Tensor, stencil: Stencil, steps: Tensor, noise: float) -> Estimate:
    """The stencil along K entries with steps (K,), a chunk of them at a time."""

    def along(line: Line, h: Tensor) -> Estimate:
        return apply(stencil, line, h, noise)

    return chunked(source, indices, steps, 2 * len(stencil.points), along, None)


def chunked(
    source: EntryLines,
    indices: Tensor,
    steps: Tensor,
    points: int,
    along: Callable[[Line, Tensor], Estimate],
    forms: Forms | None,
) -> Estimate:
    """`along` applied to lines chunk by chunk; entries on which the loss does not depend are 0 and cost nothing."""
    value, bar = torch.zeros_like(steps), torch.zeros_like(steps)
    evaluations, noise, barred = 0, None, True
    alive = source.alive(indices).nonzero().view(-1)
    size = max(1, CHUNK_NUMEL // (points * source.widest))
    for run, column in source.runs(indices[alive]):
        for part in torch.split(run, size):
            place = alive[part]
            lines, mix = source.chunk(indices[place], column)
            estimate = along(lines.line(mix, forms), steps[place])
            value[place] = estimate.value
            if estimate.bar is None:
                barred = False
            else:
                bar[place] = estimate.bar
            evaluations, noise = evaluations + estimate.evaluations, estimate.noise
    return Estimate(value, bar if barred else None, steps, evaluations, noise)


def _subset(estimate: Estimate, mask: Tensor) -> Estimate:
    assert estimate.bar is not None
    return replace(estimate, value=estimate.value[mask], bar=estimate.bar[mask], h=estimate.h[mask])


def _merged(first: Estimate, mask: Tensor, best: Estimate, evaluations: int) -> Estimate:
    assert first.bar is not None
    assert best.bar is not None
    value, bar, h = first.value.clone(), first.bar.clone(), first.h.clone()
    value[mask], bar[mask], h[mask] = best.value, best.bar, best.h
    return Estimate(value, bar, h, evaluations, first.noise)
