"""initial-loss: before training, the model predicts worse than one that knows nothing.

What it checks
    Every classification loss (cross entropy, negative log likelihood, binary cross entropy) whose labels come from the
    batch, against the loss of a model that gives every class the same probability: ln K for K classes.
Why it matters
    An untrained model should know nothing. One that is confidently wrong has weights, inputs or outputs of the wrong
    scale; its first thousand steps go into undoing that, and in low precision it may never recover.
How it decides
    The same formula is run with its logits put to 0. Mean loss per label above 1.25 times that, plus three standard errors
    of the mean, is a warning: healthy initialisations reach 1.2 (T5, Mamba, ViT without warm-up). Above 20 times it is an
    error: then nearly every label was given a probability that rounds to zero.
Broken
    model = nn.Linear(64, 10)
    nn.init.normal_(model.weight, std=20.0)
Repaired
    model = nn.Linear(64, 10)
    nn.init.normal_(model.weight, std=64**-0.5)
Limits
    A loss that is lower than expected is not reported: the model may have been trained before. A cross entropy written by
    hand is not recognised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, run_op
from chainrule.checks.flow import LOSSES, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node

NAME = "initial-loss"
aten = torch.ops.aten
WARNING, ERROR = 1.25, 20.0  # times the loss of a model that knows nothing
LOGITS = (aten.cross_entropy_loss.default, aten.binary_cross_entropy_with_logits.default)
LOG_PROBABILITIES = (aten.nll_loss_nd.default, aten.nll_loss.default, aten.nll_loss2d.default)


def check(subject: Subject) -> Outcome:
    """Compare each classification loss with that of a model that knows nothing."""
    flow = Flow(subject.exact, subject.values)
    known = (*LOGITS, *LOG_PROBABILITIES, aten.binary_cross_entropy.default)
    losses = [node for node, _, target in flow.losses() if node.op in known and target.name in flow.from_batch]
    if not losses:
        return NotRun("there is no classification loss with labels from the batch")
    return [finding for node in losses for finding in _judge(node, flow, subject)]


def _judge(node: Node, flow: Flow, subject: Subject) -> list[Finding]:
    arguments = resolve(node, flow.values)
    name = LOSSES[node.op][0]
    rows = _rows(node, arguments)
    blind = float(_rows(node, {**arguments, name: _ignorant(node, arguments[name])}).mean()) if rows.numel() else 0.0
    if rows.numel() == 0 or blind <= 0:
        return []
    mean, error = float(rows.mean()), float(rows.std(correction=0)) / math.sqrt(rows.numel())
    return [_finding(node, mean, blind, subject)] if mean > WARNING * blind + 3 * error else []


def _rows(node: Node, arguments: dict[str, Tensor]) -> Tensor:
    """The loss of each label; labels that are left out have none."""
    terms: Tensor = run_op(node.op, {**arguments, "reduction": 0})
    return terms[terms != 0]


def _ignorant(node: Node, prediction: Tensor) -> Tensor:
    """What a model that knows nothing predicts."""
    if node.op in LOGITS:
        return torch.zeros_like(prediction)
    if node.op is aten.binary_cross_entropy.default:
        return torch.full_like(prediction, 0.5)
    return torch.full_like(prediction, -math.log(prediction.shape[min(1, prediction.dim() - 1)]))


def _finding(node: Node, mean: float, blind: float, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error" if mean > ERROR * blind else "warning",
        where=node.where,
        source=line_of(node.source),
        message=f"the initial loss is {mean / blind:.3g} times that of a model that knows nothing",
        evidence={"loss": mean, "expected": blind, "ratio": mean / blind},
        rows=(
            ("your initial loss", f"{mean:.4g}", "mean over the labels of the first batch"),
            ("a model that knows nothing", f"{blind:.4g}", "the same formula with all classes equally likely"),
        ),
        notes=(
            "The outputs are too large before anything was learnt. Look at the scale of the inputs and of the last layer's "
            "weights, and whether the labels mean what the loss takes them for.",
        ),
        reproduce=subject.reproduce(NAME),
    )
