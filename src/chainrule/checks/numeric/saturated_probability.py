"""saturated-probability: a probability that is exactly 0 or 1 on the wrong side goes into the loss.

What it checks
    Predictions given to binary_cross_entropy as probabilities, and probabilities whose log nll_loss takes, in the model's
    own dtype.
Why it matters
    A sigmoid of 20 is exactly 1 in float32. If the label is 0 the loss is cut off at 100 and the gradient that passes the
    sigmoid is exactly zero: the worst mistakes are the only ones that are not learnt from.
How it decides
    Entries that equal 0 where the label is above 0.5, or 1 where it is below. Any such entry is a warning, more than a tenth
    of all an error, since their gradient is zero.
Broken
    loss = F.binary_cross_entropy(torch.sigmoid(x), labels)
Repaired
    loss = F.binary_cross_entropy_with_logits(x, labels)
Limits
    One batch. Probabilities that are only close to 0 or 1 are log-underflow's matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, resolve
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Value

NAME = "saturated-probability"
aten = torch.ops.aten
MANY = 0.1


def check(subject: Subject) -> Outcome:
    """Count the predictions without a way back."""
    nodes = [node for node in subject.graph.nodes if node.op is aten.binary_cross_entropy.default]
    if not nodes:
        return NotRun("no loss takes probabilities")
    values: dict[str, Value] = evaluate(subject.graph)
    counts = ((node, _lost(resolve(node, values))) for node in nodes)
    return [_finding(node, lost, values[node.arguments["self"].name], subject) for node, lost in counts if lost]


def _lost(arguments: dict[str, Tensor]) -> int:
    p, label = arguments["self"], arguments["target"]
    return int((((p == 0) & (label > 0.5)) | ((p == 1) & (label < 0.5))).sum())


def _finding(node: Node, lost: int, p: Value, subject: Subject) -> Finding:
    total = p.numel() if isinstance(p, Tensor) else lost
    return Finding(
        check=NAME,
        severity="error" if lost > MANY * total else "warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{lost:,} of {total:,} predictions are exactly 0 or 1 and wrong: their gradient is zero",
        evidence={"lost": lost, "of": total},
        rows=(("wrong and saturated", f"{lost:,} of {total:,}", "loss cut off at 100, no gradient"),),
        notes=("Give the raw outputs to binary_cross_entropy_with_logits, and bring inputs and weights to unit size.",),
        reproduce=subject.reproduce(NAME),
    )
