"""log-underflow: the logarithm of a probability that is about to round to zero.

What it checks
    The argument of every log that is a softmax, a sigmoid, or one minus such, in the dtype in which it runs.
Why it matters
    A softmax below the smallest number of the dtype is 0 and its log -inf; 1 - sigmoid(x) is 0 from x = 17 on in float32. The
    first confident mistake of the model then makes the loss infinite.
How it decides
    The smallest argument below the square root of the smallest one that the dtype can tell from zero (1e-19 in float32; for
    1 - p, where rounding decides, 2e-4): half of the way there, counted in powers of ten. A warning.
Broken
    loss = -(labels * torch.sigmoid(x).log() + (1 - labels) * (1 - torch.sigmoid(x)).log()).mean()
Repaired
    loss = F.binary_cross_entropy_with_logits(x, labels)
Limits
    An argument that was clamped or had a small number added is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from chainrule.checks.flow import REARRANGING, SELECTING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, Spec

NAME = "log-underflow"
aten = torch.ops.aten
LOGS = (aten.log.default, aten.log2.default, aten.log10.default)
PROBABILITIES = (aten.softmax.int, aten._softmax.default, aten.sigmoid.default)
ONE_MINUS = (aten.rsub.Scalar, aten.rsub.Tensor)


def check(subject: Subject) -> Outcome:
    """Look at every log of a probability."""
    flow = Flow(subject.exact, subject.values)
    logs = [(node, one_minus) for node in subject.graph.nodes for one_minus in _of_probability(node, flow)]
    if not logs:
        return NotRun("no logarithm of a softmax or sigmoid is written out")
    return [
        _finding(node, smallest, limit, subject)
        for node, one_minus in logs
        for smallest, limit in [_sizes(node, flow, one_minus=one_minus)]
        if smallest < limit
    ]


def _of_probability(node: Node, flow: Flow) -> Iterator[bool]:
    """False for the log of a probability, True for that of one minus a probability; nothing for any other formula."""
    if node.op not in LOGS or node.name not in flow.nodes:
        return
    maker = flow.maker(flow.nodes[node.name].arguments["self"], through=REARRANGING | SELECTING)
    one_minus = isinstance(maker, Node) and maker.op in ONE_MINUS and isinstance(maker.arguments["self"], Ref)
    if one_minus and isinstance(maker, Node):
        maker = flow.maker(maker.arguments["self"], through=REARRANGING | SELECTING)
    if isinstance(maker, Node) and maker.op in PROBABILITIES:
        yield one_minus


def _sizes(node: Node, flow: Flow, *, one_minus: bool) -> tuple[float, float]:
    """(smallest argument, limit)."""
    assert isinstance(node.spec, Spec)
    info = torch.finfo(node.spec.dtype)
    return float(flow.value(flow.nodes[node.name].arguments["self"]).min()), math.sqrt(
        info.eps if one_minus else info.tiny
    )


def _finding(node: Node, smallest: float, limit: float, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"log of a probability of {smallest:.2g}, which soon rounds to zero",
        evidence={"smallest": smallest, "limit": limit},
        rows=(("smallest probability", f"{smallest:.3g}", f"allowed {limit:.1g}"),),
        notes=("Use log_softmax, logsigmoid, cross_entropy or binary_cross_entropy_with_logits on the raw outputs.",),
        reproduce=subject.reproduce(NAME),
    )
