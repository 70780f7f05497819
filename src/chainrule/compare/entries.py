"""The numerical gradient of a parameter, entry by entry: any shape, all entries or some, four methods.

    forward   (L(W + hE) - L(W)) / h for every element, exactly the textbook's loop, one evaluation after another
    central   2 evaluations; the error of all entries together is bounded by slopes along random directions
    order8    8 evaluations and an error bar for every entry; a second step length where the bar is too wide
    complex   Im L(W + ihE) / h: exact to rounding

All of them run only what the parameter influences, in float64. All but the textbook's hold the branches (ReLU's mask
...) at the base point, move many entries at a time, and use the structure of a single entry (`entry_lines`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.autodiff.given import evaluate_given
from chainrule.compare.all_entries import numerical_value_and_grad as numerical_value_and_grad
from chainrule.compare.complex_forms import complex_form
from chainrule.compare.entry_lines import EntryLines
from chainrule.compare.entry_stencils import REQUIRED, central_entries, chunked, order8_entries
from chainrule.compare.lines import graph_noise
from chainrule.compare.suffix import suffix_of
from chainrule.errors import ChainruleError, ConfigError, did_you_mean
from chainrule.graph import Graph, Leaf, Ref, Value
from chainrule.numdiff.complex_step import STEP, complex_step
from chainrule.numdiff.stencils import Estimate
from chainrule.numdiff.steps import Choice, bend, central_step, forward_step, relative_step

METHODS = ("forward", "central", "order8", "complex")


@dataclass(frozen=True)
class NumericalGradient:
    """dL/dW of one parameter by differences of the loss; nan at entries that were not asked for.

    gradient      shape of the parameter
    bar           |gradient - true gradient| is at most this, entry by entry; None for "forward"
    h             the step; where a second step was tried, the first one
    evaluations   of the loss, those for the noise and the step length included
    reason        why this step, and what is run for an entry
    loss_plus     L(W + hE) of each entry, shape of the parameter; "forward" only
    loss_current  L(W); "forward" only
    """

    gradient: Tensor
    bar: Tensor | None
    h: float
    evaluations: int
    method: str
    reason: str
    loss_plus: Tensor | None = None
    loss_current: Tensor | None = None


def numerical_entries(
    graph: Graph,
    name: str,
    *,
    method: str = "order8",
    h: float | None = None,
    entries: Collection[tuple[int, ...]] | None = None,
    required: float = REQUIRED,
) -> NumericalGradient:
    """The numerical gradient of parameter `name`.

    graph     promoted to float64
    entries   indices to compute; all if None
    required  resolution that "order8" should reach, relative to the root mean square of the entries' gradient

    Raises ConfigError for an unknown parameter, method or index; ChainruleError if a leaf that moves is not float64.
    """
    leaf = find_parameter(graph, name)
    base = evaluate_given(graph)
    indices = flat_indices(leaf, entries)
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}; expected one of {', '.join(METHODS)}")
    if method == "forward":
        return textbook(graph, leaf, base, indices, h)
    source = EntryLines(graph, Ref(leaf.name), base)
    if method == "complex":
        return _complex(source, indices, h)
    noise, spent = graph_noise(graph, base)
    if method == "order8":
        choice = relative_step(base[leaf.name]) if h is None else Choice(h, f"h = {h:g}, as given")
        estimate = order8_entries(source, indices, choice.h, noise, required=required if h is None else None)
    else:
        choice, more = _bend_step(source, indices, h, lambda _, third: central_step(noise, third), noise)
        estimate = central_entries(graph, source, indices, choice.h, noise)
        spent += more
    return _gradient(source, indices, estimate, choice, method, spent)


def textbook(
    graph: Graph, leaf: Leaf, base: Mapping[str, Value], indices: Tensor, h: float | None
) -> NumericalGradient:
    """(L(W + hE) - L(W)) / h, one element after another; each loss is bit for bit that of a whole forward pass."""
    spent = 0
    choice = Choice(h, f"h = {h:g}, as given") if h is not None else Choice(0.0, "")
    if h is None:
        noise, spent = graph_noise(graph, base)
        source = EntryLines(graph, Ref(leaf.name), base)
        choice, more = _bend_step(source, indices, None, lambda second, _: forward_step(noise, second), noise)
        spent += more
    suffix = suffix_of(graph, (Ref(leaf.name),), base, frozen=False)
    weight = base[leaf.name].clone()
    entries = weight.view(-1)
    plus = torch.full_like(weight, torch.nan).view(-1)
    current = suffix.loss({Ref(leaf.name): weight})
    for index in indices.tolist():
        before = entries[index].clone()
        entries[index] += choice.h
        plus[index] = suffix.loss({Ref(leaf.name): weight})
        entries[index] = before
    gradient = ((plus - current) / choice.h).view(weight.shape)
    reason = f"{choice.reason}; each element by itself, {len(suffix.nodes)} of {len(graph.nodes)} formulas run anew"
    spent += len(indices) + 1
    return NumericalGradient(gradient, None, choice.h, spent, "forward", reason, plus.view(weight.shape), current)


def _complex(source: EntryLines, indices: Tensor, h: float | None) -> NumericalGradient:
    step = STEP if h is None else h
    steps = torch.full((len(indices),), step, dtype=torch.float64)
    estimate = chunked(source, indices, steps, 4, complex_step, complex_form)
    choice = Choice(step, f"h = {step:.2g}: nothing is subtracted, so it may be as small as numbers go")
    return _gradient(source, indices, estimate, choice, "complex", 0)


def _bend_step(
    source: EntryLines, indices: Tensor, h: float | None, rule: Callable[[float, float], Choice], noise: float
) -> tuple[Choice, int]:
    """The step by `rule` from the typical second and third derivative of 4 entries; never beyond the usual one."""
    if h is not None:
        return Choice(h, f"h = {h:g}, as given"), 0
    longest = relative_step(source.base[source.ref.name])
    sample = indices[torch.linspace(0, len(indices) - 1, min(4, len(indices))).long()]
    steps = torch.full((len(sample),), longest.h, dtype=torch.float64)
    lines = source.lines.prepare({source.start: source.moves(sample)})
    second, third = bend(lines.line(), steps, noise)
    choice = rule(second, third)
    return (choice if choice.h < longest.h else longest), 5 * len(sample)


def find_parameter(graph: Graph, name: str) -> Leaf:
    """The trainable leaf with that path. Raises ConfigError with the nearest name, ChainruleError if not float64."""
    leaves = {path: leaf for leaf in graph.leaves.values() if leaf.trainable for path in leaf.paths}
    if name not in leaves:
        hint = did_you_mean(name, leaves, f"it has {', '.join(list(leaves)[:8])} ...", show=repr)
        raise ConfigError(f"the graph has no trainable parameter {name!r}; {hint}")
    leaf = leaves[name]
    if leaf.value.dtype != torch.float64:
        raise ChainruleError(
            f"{name} is {leaf.value.dtype} in this graph, expected torch.float64: rounding would drown every "
            f"difference; use chainrule.capture.promote(graph, torch.float64)"
        )
    return leaf


def flat_indices(leaf: Leaf, entries: Collection[tuple[int, ...]] | None) -> Tensor:
    """Flat indices of the entries, of all of them if None. Raises ConfigError for one that the parameter has not."""
    shape = tuple(leaf.value.shape)
    if entries is None:
        return torch.arange(leaf.value.numel())
    flat = []
    for entry in entries:
        if len(entry) != len(shape) or not all(-size <= i < size for i, size in zip(entry, shape, strict=True)):
            raise ConfigError(f"{leaf.path} has no entry {list(entry)}; its shape is {list(shape)}")
        position = 0
        for i, size in zip(entry, shape, strict=True):
            position = position * size + i % size
        flat.append(position)
    return torch.tensor(flat, dtype=torch.long)


def _gradient(
    source: EntryLines, indices: Tensor, estimate: Estimate, choice: Choice, method: str, spent: int
) -> NumericalGradient:
    def spread(values: Tensor) -> Tensor:
        whole = torch.full(source.shape, torch.nan, dtype=torch.float64).view(-1)
        whole[indices] = values
        return whole.view(source.shape)

    bar = None if estimate.bar is None else spread(estimate.bar)
    reason = f"{choice.reason}; {source.reason}"
    return NumericalGradient(spread(estimate.value), bar, choice.h, estimate.evaluations + spent, method, reason)
