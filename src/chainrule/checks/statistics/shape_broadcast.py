"""shape-broadcast: a prediction of shape (B, 1) meets targets of shape (B,), and every one is compared with every other.

What it checks
    Every difference or regression loss between a prediction and a target whose shapes have a different number of axes.
Why it matters
    (B, 1) against (B,) broadcasts to (B, B): each prediction is pulled to all targets of the batch, so the model learns their
    mean. PyTorch's own losses print a warning once; a difference written by hand prints nothing.
How it decides
    An error where the result is larger than both operands, they have a different number of axes and as many entries as each
    other, one depends on parameters and the other on the batch alone. Pairwise differences that are meant have the same
    number of axes (x[:, None] - x[None, :]).
Broken
    loss = ((torch.randn(8, 1) - torch.randn(8)) ** 2).mean()
Repaired
    loss = ((torch.randn(8, 1).squeeze(1) - torch.randn(8)) ** 2).mean()
Limits
    A batch of one example shows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from chainrule.checks.flow import Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Outcome
from chainrule.graph import Node, Ref

NAME = "shape-broadcast"
aten = torch.ops.aten
PAIRED = {
    aten.sub.Tensor: ("self", "other"),
    aten.mul.Tensor: ("self", "other"),
    aten.div.Tensor: ("self", "other"),
    aten.eq.Tensor: ("self", "other"),
}


def check(subject: Subject) -> Outcome:
    """Look for operands that broadcast against each other."""
    flow = Flow(subject.exact, subject.values)
    return [_finding(node, *refs, flow, subject) for node, refs in _pairs(flow) if _crossed(*refs, flow)]


def _pairs(flow: Flow) -> Iterator[tuple[Node, tuple[Ref, Ref]]]:
    for node in flow.graph.nodes:
        if node.op is aten.broadcast_tensors.default and len(node.arguments["tensors"]) == 2:
            yield node, node.arguments["tensors"]
        elif node.op in PAIRED:
            one, other = (node.arguments[name] for name in PAIRED[node.op])
            if isinstance(one, Ref) and isinstance(other, Ref):
                yield node, (one, other)


def _crossed(one: Ref, other: Ref, flow: Flow) -> bool:
    """True if a prediction and a target of equal size and unequal number of axes blow each other up."""
    left, right = flow.value(one).shape, flow.value(other).shape
    if len(left) == len(right) or math.prod(left) != math.prod(right):
        return False
    if math.prod(_broadcast(left, right)) <= math.prod(left):
        return False
    guess, target = (one, other) if one in flow.active else (other, one)
    return guess in flow.active and target not in flow.active and target.name in flow.from_batch


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


def _finding(node: Node, one: Ref, other: Ref, flow: Flow, subject: Subject) -> Finding:
    shapes = [tuple(flow.value(ref).shape) for ref in (one, other)]
    result = _broadcast(*shapes)
    return Finding(
        check=NAME,
        severity="error",
        where=node.where,
        source=line_of(node.source),
        message=f"shapes {shapes[0]} and {shapes[1]} broadcast to {result}: every prediction is compared with every target",
        evidence={"shapes": [list(shape) for shape in shapes], "result": list(result)},
        rows=(
            ("prediction, target", f"{shapes[0]}, {shapes[1]}", f"{math.prod(shapes[0]):,} entries each"),
            ("compared", f"{result}", f"{math.prod(result):,} entries"),
        ),
        notes=("Bring both to one shape: prediction.squeeze(-1), or target.unsqueeze(-1).",),
        reproduce=subject.reproduce(NAME),
    )
