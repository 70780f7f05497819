"""label-range: the targets are not what the loss takes them for.

What it checks
    Targets of a binary cross entropy lie in [0, 1]; rows of class probabilities given to a cross entropy sum to 1; targets
    of a KL divergence are probabilities, those of a Poisson loss counts.
Why it matters
    With a target of 2 a binary cross entropy has no minimum: it falls without end while the model learns nothing. Rows that
    sum to 3 (several labels in one row) ask a softmax for what it cannot give.
How it decides
    By the values of the first batch. A target for which the loss is unbounded or undefined is an error. Rows that do not
    sum to 1 are a warning, since a row may carry its own weight; rows of zeros are taken as padding.
Broken
    loss = F.binary_cross_entropy_with_logits(torch.zeros(3), torch.tensor([0.0, 1.0, 2.0]))
Repaired
    loss = F.cross_entropy(torch.zeros(3, 3), torch.tensor([0, 1, 2]))
Limits
    Only the first batch. Integer class labels out of range, and on the CPU targets of binary_cross_entropy outside [0, 1],
    are refused by PyTorch itself; check then ends with the line, what the labels are and what they may be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.flow import Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome, Severity
from chainrule.graph import Node

NAME = "label-range"
aten = torch.ops.aten
BINARY = (aten.binary_cross_entropy.default, aten.binary_cross_entropy_with_logits.default)


def check(subject: Subject) -> Outcome:
    """Look at the targets of every known loss."""
    flow = Flow(subject.exact, subject.values)
    losses = list(flow.losses())
    if not losses:
        return NotRun("the loss is not one of PyTorch's own")
    found = ((node, _wrong(node, flow.value(target))) for node, _, target in losses)
    return [_finding(node, flow.value(node.arguments["target"]), *wrong, subject) for node, wrong in found if wrong]


def _wrong(node: Node, target: Tensor) -> tuple[Severity, str, str] | None:
    """(severity, what is wrong, what to do), or None."""
    if node.op in BINARY:
        outside = (target < 0) | (target > 1)
        advice = "for more than two classes use one output per class and cross_entropy"
        return _some(outside, "a binary cross entropy is given targets outside [0, 1]: it has no minimum", advice)
    if node.op is aten.kl_div.default and not node.arguments["log_target"]:
        advice = "give probabilities as the target, or set log_target=True"
        return _some(target < 0, "a KL divergence is given negative targets, which are no probabilities", advice)
    if node.op is aten.poisson_nll_loss.default:
        return _some(target < 0, "a Poisson loss is given negative counts", "give it counts")
    if node.op is aten.cross_entropy_loss.default and target.is_floating_point():
        return _rows(target)
    return None


def _some(mask: Tensor, message: str, advice: str) -> tuple[Severity, str, str] | None:
    return ("error", message, advice) if bool(mask.any()) else None


def _rows(target: Tensor) -> tuple[Severity, str, str] | None:
    if bool((target < 0).any()):
        return "error", "a cross entropy is given negative class probabilities", "give probabilities that sum to 1"
    sums = target.sum(min(1, target.dim() - 1))
    wrong = ((sums - 1).abs() > 1e-3) & (sums != 0)  # rows of zeros are padding; 1e-3: targets rounded to bfloat16
    if not bool(wrong.any()):
        return None
    advice = (
        "if a row may have several labels use binary_cross_entropy_with_logits; else give probabilities that sum to 1"
    )
    low, high = float(sums[wrong].min()), float(sums[wrong].max())
    return "warning", f"rows of the class probabilities sum to {low:.3g} .. {high:.3g}, not to 1", advice


def _finding(node: Node, target: Tensor, severity: Severity, message: str, advice: str, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity=severity,
        where=node.where,
        source=line_of(node.source),
        message=message,
        evidence={"minimum": float(target.min()), "maximum": float(target.max()), "labels": target.numel()},
        rows=(("targets", f"{float(target.min()):.4g} .. {float(target.max()):.4g}", f"{target.numel():,} of them"),),
        notes=(advice[0].upper() + advice[1:] + ".",),
        reproduce=subject.reproduce(NAME),
    )
