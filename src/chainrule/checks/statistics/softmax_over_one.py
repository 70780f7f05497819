"""softmax-over-one: a softmax over a single class, which is always 1.

What it checks
    Every cross entropy, softmax and log_softmax that runs over the outputs of a layer with one unit.
Why it matters
    The result is 1 whatever the model says; the loss is constant and all gradients are exactly zero.
How it decides
    By the shape: one class. An error, since no gradient can come through it. A softmax over one key or one expert of many
    possible ones is not meant here: only the width of a layer's output counts.
Broken
    loss = F.cross_entropy(nn.Linear(8, 1)(torch.randn(4, 8)), torch.zeros(4, dtype=torch.long))
Repaired
    loss = F.binary_cross_entropy_with_logits(nn.Linear(8, 1)(torch.randn(4, 8)).squeeze(1), torch.zeros(4))
Limits
    Only outputs that come straight from a layer.
"""

from __future__ import annotations

import torch

from chainrule.checks.flow import LAYERS, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Outcome
from chainrule.graph import Node, Ref, op_name

NAME = "softmax-over-one"
aten = torch.ops.aten
NORMALISING = (aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default)


def check(subject: Subject) -> Outcome:
    """Look at the number of classes of everything that normalises over classes."""
    flow = Flow(subject.exact, subject.values)
    return [_finding(node, subject) for node in flow.graph.nodes if _classes(node, flow) == 1]


def _classes(node: Node, flow: Flow) -> int | None:
    """Number of classes that the node normalises over; None if it does not, or if no layer's width decides it."""
    ref = node.arguments.get("self")
    if not isinstance(ref, Ref) or ref not in flow.active:
        return None
    maker, logits = flow.maker(ref), flow.value(ref)
    if not isinstance(maker, Node) or maker.op not in LAYERS or logits.dim() == 0:
        return None
    width = flow.value(Ref(maker.name)).shape[1 if "conv" in str(maker.op) else -1]
    if node.op is aten.cross_entropy_loss.default:
        return logits.shape[min(1, logits.dim() - 1)] if width == 1 else None
    return logits.shape[node.arguments["dim"]] if node.op in NORMALISING and width == 1 else None


def _finding(node: Node, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=node.where,
        source=line_of(node.source),
        message=f"{op_name(node.op)} runs over one class: its result is constant and its gradient zero",
        evidence={"classes": 1},
        notes=(
            "For a yes-or-no answer from one output use binary_cross_entropy_with_logits; else give one output per class.",
        ),
        reproduce=subject.reproduce(NAME),
    )
