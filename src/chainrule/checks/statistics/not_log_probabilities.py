"""not-log-probabilities: a loss that wants log probabilities is given something else.

What it checks
    The predictions of nll_loss and kl_div: the exponentials over the classes sum to at most 1.
Why it matters
    nll_loss(softmax(x)) runs, falls, and is bounded: its gradient is that of the mean probability, weak exactly where the
    model is wrong. With raw scores it falls without end, since raising all scores lowers it.
How it decides
    By values: probabilities (none negative, sums of 1) are an error; for nll_loss other numbers whose logsumexp over the
    classes exceeds 0 by more than rounding are a warning.
Broken
    loss = F.nll_loss(torch.randn(4, 3).softmax(1), torch.tensor([0, 1, 2, 0]))
Repaired
    loss = F.nll_loss(torch.randn(4, 3).log_softmax(1), torch.tensor([0, 1, 2, 0]))
Limits
    Scores that are no log probabilities but sum to less than 1 pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.flow import Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome, Severity
from chainrule.graph import Node, op_name

NAME = "not-log-probabilities"
aten = torch.ops.aten
NLL = (aten.nll_loss_nd.default, aten.nll_loss.default, aten.nll_loss2d.default)
ROUNDING = 1e-3  # what a sum of probabilities in bfloat16 may be off


def check(subject: Subject) -> Outcome:
    """Look at the predictions of every nll_loss and kl_div."""
    flow = Flow(subject.exact, subject.values)
    losses = [(node, flow.value(guess)) for node, guess, _ in flow.losses() if node.op in (*NLL, aten.kl_div.default)]
    if not losses:
        return NotRun("no loss takes log probabilities")
    return [_finding(node, guess, severity, subject) for node, guess in losses if (severity := _wrong(node, guess))]


def _wrong(node: Node, guess: Tensor) -> Severity | None:
    classes = min(1, guess.dim() - 1) if node.op in NLL else -1
    sums = guess.sum(classes)
    if bool((guess >= 0).all()) and bool(((sums - 1).abs() < ROUNDING).all()):
        return "error"
    too_much = node.op in NLL and bool((guess.logsumexp(classes) > ROUNDING).any())
    return "warning" if too_much else None


def _finding(node: Node, guess: Tensor, severity: Severity, subject: Subject) -> Finding:
    what = "probabilities" if severity == "error" else "raw scores"
    return Finding(
        check=NAME,
        severity=severity,
        where=node.where,
        source=line_of(node.source),
        message=f"{op_name(node.op)} is given {what} where it takes log probabilities",
        evidence={"minimum": float(guess.min()), "maximum": float(guess.max())},
        rows=(("given", f"{float(guess.min()):.4g} .. {float(guess.max()):.4g}", "log probabilities are at most 0"),),
        notes=("Use log_softmax before it, or cross_entropy on the raw scores in place of both.",),
        reproduce=subject.reproduce(NAME),
    )
