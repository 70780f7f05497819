"""The numerical gradient of a whole weight matrix at a waist: T·d differences in place of d².

A weight acts on the loss through the output y = x Wᵀ of its product, T·d numbers for d² weights, and often linearly
still further on (attention mixes values linearly, W_O follows, the residual stream adds). So differences are taken with
respect to such an activation z, which all of the weight's influence passes, and

    dL/dW = Aᵀ dL/dz          with z = A W + constant

is exact. Only the linearity of the ops before z is used, which is tried on random numbers: no derivative rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import value_of
from chainrule.autodiff.given import evaluate_given
from chainrule.autodiff.reverse import output_refs
from chainrule.compare.entries import NumericalGradient, find_parameter
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.entry_stencils import REQUIRED, norm_bound, order8_entries, stencil_entries
from chainrule.compare.linear_region import LinearStep
from chainrule.compare.lines import LossLines, graph_noise
from chainrule.compare.suffix import dependents, is_floating
from chainrule.compare.transposed import can_transpose, transposed
from chainrule.derivatives import FLAT
from chainrule.errors import ChainruleError, ConfigError
from chainrule.graph import Graph, Ref, Value
from chainrule.numdiff.directions import COUNT
from chainrule.numdiff.stencils import PLAIN_CENTRAL
from chainrule.numdiff.steps import Choice, bend, central_step, relative_step

ADJOINTNESS = 1e-10  # relative, in float64


@dataclass(frozen=True)
class Waist:
    """A value that all influence of a weight on the loss passes, linearly up to there.

    steps   the linear steps from the weight to `ref`, in order; empty if `ref` is the weight itself
    reason  why this value, with its size and the weight's
    """

    ref: Ref
    steps: tuple[LinearStep, ...]
    reason: str


def numerical_at_waist(
    graph: Graph, name: str, *, method: str = "central", h: float | None = None, waist: Waist | None = None
) -> NumericalGradient:
    """The gradient of parameter `name` from differences at its waist.

    method  "central": 2 evaluations for each entry of the waist, with one bar, from slopes of the loss along 8 random
            directions of the *weight*, which checks the contraction as well; "order8": 8, with a bar for each entry
    waist   where to cut; chosen by `choose_waist` if None

    Raises ConfigError for an unknown parameter or method, ChainruleError if the graph is not float64.
    """
    leaf = find_parameter(graph, name)
    base = evaluate_given(graph)
    weight = Ref(leaf.name)
    waist = choose_waist(graph, weight, base) if waist is None else waist
    source = EntryLines(graph, waist.ref, base)
    noise, spent = graph_noise(graph, base)
    z = value_of(waist.ref, base)
    indices = torch.arange(z.numel())
    if method == "order8":
        choice = relative_step(z) if h is None else Choice(h, f"h = {h:g}, as given")
        estimate = order8_entries(source, indices, choice.h, noise, required=REQUIRED if h is None else None)
        assert estimate.bar is not None
        gradient = contract(waist, estimate.value.view(z.shape), base)
        bar = contract(waist, estimate.bar.view(z.shape), base, absolute=True)
    elif method == "central":
        choice, more = _central_choice(source, z, h, noise)
        estimate = stencil_entries(
            source, indices, PLAIN_CENTRAL, torch.full((z.numel(),), choice.h, dtype=torch.float64), noise
        )
        gradient = contract(waist, estimate.value.view(z.shape), base)
        every = torch.arange(gradient.numel())
        bound = norm_bound(LossLines(graph, (weight,), base), every, gradient.flatten(), noise)
        bar = torch.full_like(gradient, bound)
        spent += more + 8 * COUNT
    else:
        raise ConfigError(f"method = {method!r} at a waist; expected central or order8")
    reason = f"{choice.reason}; {waist.reason}"
    return NumericalGradient(gradient, bar, choice.h, estimate.evaluations + spent, method, reason)


def choose_waist(graph: Graph, weight: Ref, base: Mapping[str, Value]) -> Waist:
    """The smallest value that all of the weight's influence passes and that is linear in it; of equals the last.

    The last, because an entry of the residual stream moves one token alone until the next attention mixes them, while an
    entry of the values moves all later tokens at once.
    """
    region = LossLines(graph, (weight,), base).linear
    size = value_of(weight, base).numel()
    best = Waist(weight, (), f"differences of the {size:,} weights themselves: no smaller waist")
    fewest = size
    known = {weight}
    steps: list[LinearStep] = []
    for step in region:
        outputs = output_refs(step.node)
        if len(outputs) != 1 or not can_transpose(step) or not known.issuperset(step.moving):
            continue
        steps.append(step)
        known.add(outputs[0])
        count = value_of(outputs[0], base).numel()
        if count <= fewest and count < size and _all_pass(graph, weight, outputs[0]):
            fewest = count
            reason = f"{count:,} differences at the waist {outputs[0]} ({step.node.where}) in place of {size:,}"
            best = Waist(outputs[0], tuple(steps), reason)
    _try_contraction(best, weight, base)
    return best


def contract(waist: Waist, g: Tensor, base: Mapping[str, Value], *, absolute: bool = False) -> Tensor:
    """Aᵀ g: the gradient of the weight from that of the waist; with `absolute`, |A|ᵀ g for a bar."""
    shares = {waist.ref: g}
    for step in reversed(waist.steps):
        (output,) = output_refs(step.node)
        if output in shares:
            for ref, share in transposed(step, shares.pop(output), base, absolute=absolute).items():
                shares[ref] = shares[ref] + share if ref in shares else share
    (gradient,) = shares.values()
    return gradient


def _try_contraction(waist: Waist, weight: Ref, base: Mapping[str, Value]) -> None:
    """Raise ChainruleError unless <A e, g> = <e, Aᵀ g> for random e and g."""
    generator = torch.Generator().manual_seed(0)
    e, g = (
        torch.randn(value_of(ref, base).shape, generator=generator, dtype=torch.float64) for ref in (weight, waist.ref)
    )
    tangents = {weight: e}
    for step in waist.steps:
        tangents.update(step(tangents))
    there, back = tangents[waist.ref] * g, e * contract(waist, g, base)
    if float((there.sum() - back.sum()).abs()) > ADJOINTNESS * float(there.norm() + back.norm()):
        raise ChainruleError(
            f"the way from {weight} to the waist {waist.ref} and its transpose do not fit together: "
            f"{float(there.sum())} against {float(back.sum())}; take the gradient entry by entry and report this"
        )


def _all_pass(graph: Graph, weight: Ref, cut: Ref) -> bool:
    """Whether the loss no longer depends on the weight once the value `cut` is held."""
    moving = {weight}
    for node in graph.nodes:
        if (
            Ref(node.name) != cut
            and node.op not in FLAT
            and is_floating(node)
            and any(r in moving for r in node.refs())
        ):
            moving.update(output_refs(node))
    return graph.output not in moving and bool(dependents(graph, (cut,)))


def _central_choice(source: EntryLines, z: Tensor, h: float | None, noise: float) -> tuple[Choice, int]:
    if h is not None:
        return Choice(h, f"h = {h:g}, as given"), 0
    longest = relative_step(z)
    sample = torch.linspace(0, z.numel() - 1, min(4, z.numel())).long()
    lines = source.lines.prepare({source.start: source.moves(sample)})
    _, third = bend(lines.line(), torch.full((len(sample),), longest.h, dtype=torch.float64), noise)
    choice = central_step(noise, third)
    return (choice if choice.h < longest.h else longest), 5 * len(sample)
