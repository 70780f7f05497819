"""exp-overflow: an exponential of numbers so large that it soon leaves the dtype.

What it checks
    The inputs of every exp on the way to the loss, in the dtype in which it runs.
Why it matters
    exp overflows above 88.7 in float32 and 11.1 in float16. A softmax or cross entropy written by hand without subtracting
    the maximum works on small logits and gives inf/inf = nan as training makes them grow.
How it decides
    The largest input above half of the logarithm of the dtype's largest number (44 in float32, 5.5 in float16): one more
    doubling of the logits and it overflows. A warning.
Broken
    p = x.exp() / x.exp().sum(-1, keepdim=True)
Repaired
    p = x.softmax(-1)
Limits
    One batch at the beginning of training; logits grow later.
"""

from __future__ import annotations

import math

import torch

from chainrule.checks.flow import Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, Spec

NAME = "exp-overflow"
aten = torch.ops.aten
EXPONENTIALS = (aten.exp.default, aten.expm1.default, aten.cosh.default, aten.sinh.default)


def check(subject: Subject) -> Outcome:
    """Look at the inputs of every exponential."""
    flow = Flow(subject.exact, subject.values)
    names = {node.name for node in flow.graph.nodes if node.op in EXPONENTIALS and Ref(node.name) in flow.active}
    nodes = [node for node in subject.graph.nodes if node.name in names]
    if not nodes:
        return NotRun("no exponential is written out")
    return [_finding(node, *sizes, subject) for node in nodes if (sizes := _sizes(node, flow)) and sizes[0] > sizes[1]]


def _sizes(node: Node, flow: Flow) -> tuple[float, float] | None:
    """(largest input, allowed) of an exponential, for the dtype that the user's model runs it in."""
    if not isinstance(node.spec, Spec) or not node.spec.dtype.is_floating_point:
        return None
    return float(flow.value(flow.nodes[node.name].arguments["self"]).max()), math.log(
        torch.finfo(node.spec.dtype).max
    ) / 2


def _finding(node: Node, largest: float, allowed: float, subject: Subject) -> Finding:
    assert isinstance(node.spec, Spec)
    dtype = str(node.spec.dtype).removeprefix("torch.")
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"exp of {largest:.3g}: {dtype} overflows at {2 * allowed:.3g}",
        evidence={"largest": largest, "overflow": 2 * allowed, "dtype": dtype},
        rows=(("largest input", f"{largest:.4g}", f"{dtype} overflows at {2 * allowed:.4g}; allowed half of it"),),
        notes=("Subtract the largest input first, as softmax, log_softmax and logsumexp do.",),
        reproduce=subject.reproduce(NAME),
    )
