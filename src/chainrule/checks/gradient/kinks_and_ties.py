"""kinks-and-ties: many values lie just where a formula's derivative jumps.

What it checks
    The share of entries at a kink, on the way from the parameters to the loss: zeros that enter a ReLU or an absolute
    value, equal entries under a maximum.
Why it matters
    There a derivative is a convention, and differences disagree with it by right. All-zero initialisation, hard clipping
    or padding with zeros puts most of a layer there.
How it decides
    Each rule declares its kinks; a formula is named if more than one entry in ten lies on one. Only mentioned: it is no
    fault, but it explains a numerical gradient that disagrees, and a layer that learns slowly.
Broken
    nn.init.zeros_(self.up.weight); nn.init.zeros_(self.up.bias)       # then relu(self.up(x))
Repaired
    nn.init.kaiming_normal_(self.up.weight)
Limits
    One batch. Kinks that a rule does not declare (sorting, quantiles) are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve
from chainrule.autodiff.reverse import active_values
from chainrule.checks.subject import Subject, line_of
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.finding import Finding, Outcome
from chainrule.graph import Node

NAME = "kinks-and-ties"
SHARE = 0.1
MOST = 5


def check(subject: Subject) -> Outcome:
    """The formulas with the most entries at a kink, at most five."""
    found = sorted(_crowded(subject), key=lambda pair: -pair[1])[:MOST]
    return [_finding(subject, node, share) for node, share in found]


def _crowded(subject: Subject) -> Iterator[tuple[Node, float]]:
    active = active_values(subject.exact)
    for node in subject.exact.nodes:
        rule = RULES.get(node.op)
        if rule is None or rule.kink is None or not any(ref in active for ref in node.refs()):
            continue
        with torch.no_grad():
            mask = call_by_name(rule.kink, resolve(node, subject.values))
        if isinstance(mask, Tensor) and mask.numel() and float(mask.double().mean()) > SHARE:
            yield node, float(mask.double().mean())


def _finding(subject: Subject, node: Node, share: float) -> Finding:
    return Finding(
        check=NAME,
        severity="info",
        where=node.where,
        source=line_of(node.source),
        message=f"{share:.0%} of the entries lie at a kink, where the derivative is a convention",
        evidence={"node": node.name, "share": share},
        notes=("A numerical gradient may disagree there by right. Look for zeros: initialisation, clipping, padding.",),
        reproduce=subject.reproduce(NAME),
    )
