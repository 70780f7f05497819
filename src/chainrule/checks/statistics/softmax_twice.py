"""softmax-twice: the outputs go through a softmax or sigmoid, and the loss applies one again.

What it checks
    What makes the logits of cross_entropy, log_softmax and softmax: a softmax or sigmoid. What makes those of
    binary_cross_entropy_with_logits and logsigmoid: a sigmoid or softmax.
Why it matters
    Probabilities lie in [0, 1], so the second softmax can give the right class no more than e/(e + K - 1): with 10 classes
    the loss never falls below 1.46, and the gradient is a tenth of what it should be. Training goes on, slowly.
How it decides
    By the graph; ops that only rearrange are passed through. An error where the outer one is a loss. log_softmax before
    cross_entropy is harmless (it changes nothing) and not reported.
Broken
    loss = F.cross_entropy(torch.randn(4, 10).softmax(1), torch.tensor([1, 2, 3, 4]))
Repaired
    loss = F.cross_entropy(torch.randn(4, 10), torch.tensor([1, 2, 3, 4]))
Limits
    Probabilities that are scaled before the loss (a temperature) are not reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from chainrule.checks.flow import REARRANGING, SELECTING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Outcome
from chainrule.graph import Node, Ref, op_name

NAME = "softmax-twice"
aten = torch.ops.aten
SOFTMAX = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
SIGMOID = (aten.sigmoid.default,)
LOSSES = (aten.cross_entropy_loss.default, aten.binary_cross_entropy_with_logits.default)
OUTER = (*LOSSES, aten.log_softmax.int, aten._log_softmax.default, aten.log_sigmoid.default, *SOFTMAX)


def check(subject: Subject) -> Outcome:
    """Look at what makes the logits."""
    flow = Flow(subject.exact, subject.values)
    return [_finding(inner, outer, flow, subject) for inner, outer in _pairs(flow)]


def _pairs(flow: Flow) -> Iterator[tuple[Node, Node]]:
    for outer in flow.graph.nodes:
        ref = outer.arguments.get("self")
        if outer.op not in OUTER or not isinstance(ref, Ref) or ref not in flow.active:
            continue
        inner = flow.maker(ref, through=REARRANGING | SELECTING)
        if isinstance(inner, Node) and inner.op in (*SOFTMAX, *SIGMOID):
            yield inner, outer


def _certain(outer: Node, flow: Flow) -> bool:
    """True if the outer one is a loss, or goes into one."""
    takers = flow.takers(outer, through=REARRANGING | SELECTING | {aten.neg.default})
    return outer.op in LOSSES or any(taker.op in (aten.nll_loss_nd.default, aten.nll_loss.default) for taker in takers)


def _finding(inner: Node, outer: Node, flow: Flow, subject: Subject) -> Finding:
    names = [op_name(node.op) for node in (inner, outer)]
    rows, evidence = _floor(outer, flow)
    return Finding(
        check=NAME,
        severity="error" if _certain(outer, flow) else "warning",
        where=inner.where,
        source=line_of(outer.source if outer.op in LOSSES else inner.source),
        message=f"the output of {names[0]} is taken for logits by {names[1]}, which normalises once more",
        evidence={"inner": names[0], "outer": names[1], **evidence},
        rows=rows,
        notes=(f"Give {names[1]} the raw outputs of the layer; take {names[0]} only where probabilities are read.",),
        reproduce=subject.reproduce(NAME),
    )


def _floor(outer: Node, flow: Flow) -> tuple[tuple[tuple[str, str, str], ...], dict[str, float]]:
    """The lowest loss that logits within [0, 1] can reach."""
    if outer.op is not aten.cross_entropy_loss.default:
        return (), {}
    logits = flow.value(outer.arguments["self"])
    classes = logits.shape[min(1, logits.dim() - 1)]
    floor = math.log(1 + (classes - 1) / math.e)
    return (("lowest loss possible", f"{floor:.4g}", f"{classes} classes, logits within [0, 1]"),), {"floor": floor}
