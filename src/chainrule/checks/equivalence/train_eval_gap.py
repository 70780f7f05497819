"""train-eval-gap: with dropout off, train mode and eval mode compute different functions.

What it checks
    The loss in train mode with every dropout mask replaced by its mean, against the loss in eval mode, both in float64.
    Modules that update buffers of their own in forward (batch norm, spectral norm) stay in train mode in both.
Why it matters
    `if self.training:` with two code paths is a second model that nobody trains: what is evaluated and shipped is not what
    learnt.
How it decides
    A difference above 1e-6 of the loss is a warning, since a model may do more in training by design (auxiliary losses). The
    place is the first formula at which the graphs of the two modes differ.
Broken
    y = norm(gate(x)) if self.training else gate(norm(x))
Repaired
    y = norm(gate(x))
Limits
    Not made where forward draws other random numbers than dropout in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from chainrule.autodiff.evaluate import evaluate_loss
from chainrule.capture import capture
from chainrule.capture.preserve import preserved
from chainrule.checks.equivalence.rows import exact_pass
from chainrule.checks.subject import Subject, line_of
from chainrule.errors import ChainruleError
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Graph, Leaf, Node, op_name

NAME = "train-eval-gap"
GAP = 1e-6  # of the loss: both are float64, and constants of float32 inside a model may leave 1e-7


def check(subject: Subject) -> Outcome:
    """Compare the two modes without their random numbers."""
    model = subject.setup.module
    if not model.training:
        return NotRun("the model is in eval mode already")
    means = {name: mean for name, leaf in subject.exact.leaves.items() if (mean := _mean(leaf)) is not None}
    if any(leaf.kind == "random" and name not in means for name, leaf in subject.exact.leaves.items()):
        return NotRun("forward draws random numbers other than dropout")
    train = float(evaluate_loss(subject.exact, means)) if means else subject.loss
    with _eval_but_for_own_buffers(model, subject.graph):
        result = exact_pass(subject, subject.batch, training=None)
        if isinstance(result, NotRun):
            return result
        evaluated = float(result.loss)
        if abs(train - evaluated) <= GAP * max(abs(train), abs(evaluated)):
            return []
        place = _first_difference(model, subject)
    return [_finding(train, evaluated, place, subject)]


def _mean(leaf: Leaf) -> Tensor | None:
    """The mean of a dropout's mask, as the leaf holds it; None for any other draw."""
    if leaf.recipe is None:
        return None
    if "dropout" in op_name(leaf.recipe.op):  # divided by 1 - p already
        return torch.ones_like(leaf.value)
    if leaf.recipe.op is torch.ops.aten.bernoulli.p:
        return torch.full_like(leaf.value, float(leaf.recipe.arguments["p"]))
    return None


@contextmanager
def _eval_but_for_own_buffers(model: nn.Module, graph: Graph) -> Iterator[None]:
    """Eval mode, but for the modules whose forward updates a buffer of their own; the modes are put back."""
    owners = {path.rpartition(".")[0] for path in graph.mutated}
    with preserved(model):
        model.eval()
        for path, module in model.named_modules():
            if path in owners:
                module.training = True
        yield


def _first_difference(model: nn.Module, subject: Subject) -> Node | None:
    """The first formula of train mode that eval mode does not have at its place."""
    try:
        other = capture(model, subject.setup.loss, subject.batch)
    except ChainruleError:
        return None
    pairs = zip(_formulas(subject.graph), _formulas(other), strict=False)
    return next((ours for ours, theirs in pairs if (ours.op, ours.module) != (theirs.op, theirs.module)), None)


def _formulas(graph: Graph) -> list[Node]:
    """The nodes that read no random draw: what is left of a graph without its dropout."""
    random = {name for name, leaf in graph.leaves.items() if leaf.kind == "random"}
    return [node for node in graph.nodes if not any(ref.name in random for ref in node.refs())]


def _finding(train: float, evaluated: float, place: Node | None, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=place.where if place else type(subject.setup.model).__name__,
        source=line_of(place.source) if place else None,
        message="with dropout off, train and eval mode compute different losses",
        evidence={"train": train, "eval": evaluated},
        rows=(
            ("train mode, no dropout", f"{train:.9g}", "float64"),
            ("eval mode", f"{evaluated:.9g}", "the same parameters and batch"),
        ),
        notes=("Look for `if self.training`, or a value that only one mode computes, at the line above.",),
        reproduce=subject.reproduce(NAME),
    )
