"""penalty-dominates: a penalty on the weights outweighs the loss on the data.

What it checks
    The gradient of those summands of the loss that depend on parameters and not on the batch, against the gradient of all
    the others.
Why it matters
    If the penalty pulls ten times as hard as the data, the weights shrink to zero whatever the data say, and the printed
    loss falls while they do.
How it decides
    |gradient of the penalty| / |gradient of the rest|, both by the chain rule over all parameters, above 10: then less than
    a tenth of each step is about the data.
Broken
    loss = data + 10.0 * sum(p.square().sum() for p in model.parameters())
Repaired
    loss = data + 1e-4 * sum(p.square().sum() for p in model.parameters())
Limits
    Decay inside the optimizer (weight_decay) is not part of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from chainrule.autodiff.reverse import reverse
from chainrule.checks.flow import Flow, adjoints_above
from chainrule.checks.statistics.terms import summands
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "penalty-dominates"
LIMIT = 10.0


def check(subject: Subject) -> Outcome:
    """Compare the pull of the penalties with that of the data."""
    flow = Flow(subject.exact, subject.values)
    terms = [ref for ref in summands(flow) if ref in flow.active]
    penalties = [ref for ref in terms if ref.name not in flow.from_batch]
    data = [ref for ref in terms if ref.name in flow.from_batch]
    if not penalties or not data:
        return NotRun("no summand of the loss depends on the weights alone")
    seeds = adjoints_above(subject.exact, subject.values, {ref.name for ref in terms})
    pull, push = (_norm({ref: seeds[ref] for ref in some if ref in seeds}, subject) for some in (penalties, data))
    if pull <= LIMIT * push:
        return []
    worst = max(penalties, key=lambda ref: abs(float(flow.value(ref).sum() * seeds[ref].sum())))
    return [_finding(flow.nodes.get(worst.name), len(penalties), pull, push, subject)]


def _norm(seeds: Mapping[Ref, Tensor], subject: Subject) -> float:
    """The norm, over all parameters, of the gradient that comes through these summands."""
    adjoints = reverse(subject.exact, subject.values, seeds=seeds, keep_all=False)
    parts = (adjoints.get(Ref(leaf.name)) for leaf in subject.exact.parameters.values())
    return math.sqrt(sum(float(part.square().sum()) for part in parts if part is not None))


def _finding(node: Node | None, terms: int, pull: float, push: float, subject: Subject) -> Finding:
    ratio = pull / push if push else math.inf
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where if node else "loss",
        source=line_of(node.source) if node else None,
        message=f"the penalty on the weights pulls {ratio:.3g} times as hard as the data",
        evidence={"penalty": pull, "data": push},
        rows=(
            ("gradient of the penalty", f"{pull:.3e}", f"norm over all parameters, {terms} terms"),
            ("gradient of the data", f"{push:.3e}", "all other terms"),
        ),
        notes=("Divide the penalty's factor by about the ratio, or use the optimizer's weight_decay.",),
        reproduce=subject.reproduce(NAME),
    )
