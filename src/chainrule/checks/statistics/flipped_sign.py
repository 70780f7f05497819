"""flipped-sign: the loss is the negative of a loss, so training makes the predictions worse.

What it checks
    dL/dl of every known loss l (cross entropy, mean squared error and so on) whose labels come from the batch: it must be
    positive.
Why it matters
    A minus too many (a reward taken for a loss, a maximised likelihood) lets the printed number fall without end while the
    model unlearns.
How it decides
    By the chain rule: the adjoint of the loss node is negative. A warning, since an adversary or unlearning wants just that.
Broken
    loss = -F.cross_entropy(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0]))
Repaired
    loss = F.cross_entropy(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0]))
Limits
    A loss written by hand has no known sign; then only the steps of the loop tell (loss-rises).
"""

from __future__ import annotations

from torch import Tensor

from chainrule.checks.flow import Flow, adjoints_above
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, op_name

NAME = "flipped-sign"


def check(subject: Subject) -> Outcome:
    """Look at the sign with which each known loss enters the total."""
    flow = Flow(subject.exact, subject.values)
    losses = [node for node, _, target in flow.losses() if target.name in flow.from_batch]
    if not losses:
        return NotRun("the loss is not one of PyTorch's own with labels from the batch")
    adjoints = adjoints_above(subject.exact, subject.values, {node.name for node in losses})
    slopes = ((node, adjoints.get(Ref(node.name))) for node in losses)
    return [_finding(node, slope, subject) for node, slope in slopes if slope is not None and _negative(slope)]


def _negative(slope: Tensor) -> bool:
    return bool((slope <= 0).all()) and bool((slope < 0).any())


def _finding(node: Node, slopes: Tensor, subject: Subject) -> Finding:
    slope = float(slopes.sum())
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"the total falls as {op_name(node.op)} rises: training makes the predictions worse",
        evidence={"slope": slope, "loss": subject.loss},
        rows=((f"d total / d {op_name(node.op)}", f"{slope:.3g}", "positive in a loss that is minimised"),),
        notes=("Take the minus away, unless the model is meant to be fooled or to unlearn.",),
        reproduce=subject.reproduce(NAME),
    )
