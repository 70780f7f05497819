"""shape-broadcast: a prediction of shape (B, 1) meets targets of shape (B,), and every one is compared with every other.

What it checks
    Every difference or regression loss between a prediction and a target whose shapes have a different number of axes.
Why it matters
    (B, 1) against (B,) broadcasts to (B, B): each prediction is pulled to all targets of the batch, so the model learns their
    mean. PyTorch's own losses print a warning once; a difference written by hand prints nothing.
How it decides
    An error where the result is larger than both operands, they have a different number of axes and as many entries as each
    other, one depends on parameters and the other on the batch alone. Of a difference whose squares or absolute values are
    averaged over everything the other may be anything without parameters: mean_ij (p_i - t_j)² = mean_i (p_i - mean t)² +
    var t pulls every prediction to one number. Pairwise differences that are meant have the same number of axes
    (x[:, None] - x[None, :]).
Broken
    loss = ((torch.randn(8, 1) - torch.randn(8)) ** 2).mean()
Repaired
    loss = ((torch.randn(8, 1).squeeze(1) - torch.randn(8)) ** 2).mean()
Limits
    A batch of one example shows nothing. In a script, data are what its DataLoaders gave and what its model is called with;
    of other tensors from before the model's call (a mask, a row drawn by hand) nobody can tell whether they belong to the
    batch: a product with one is not judged, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from chainrule.checks.flow import REGRESSIONS, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "shape-broadcast"
aten = torch.ops.aten
PAIRED = {
    aten.sub.Tensor: ("self", "other"),
    aten.mul.Tensor: ("self", "other"),
    aten.div.Tensor: ("self", "other"),
    aten.eq.Tensor: ("self", "other"),
}
# The size of a difference, and what makes one number of many.
SIZES = frozenset({aten.pow.Tensor_Scalar, aten.square.default, aten.abs.default})
MEANS = frozenset({aten.mean.default, aten.sum.default})


def check(subject: Subject) -> Outcome:
    """Look for operands that broadcast against each other."""
    flow = Flow(subject.exact, subject.values)
    crossed = [(node, refs) for node, refs in _pairs(flow) if _crossed(*refs, flow)]
    wrong = [(node, refs) for node, refs in crossed if _compares(node, *refs, flow)]
    if not wrong and subject.tape is not None:
        for node, refs in crossed:
            if _unknown(flow.ancestors(_target(*refs, flow).name), flow):
                return NotRun(_undecided(node, *refs, flow), missing=True)
    return [_finding(node, *refs, flow, subject) for node, refs in wrong]


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
    return (one in flow.active) != (other in flow.active)


def _target(one: Ref, other: Ref, flow: Flow) -> Ref:
    """The operand on which no parameter has an influence."""
    return other if one in flow.active else one


def _compares(node: Node, one: Ref, other: Ref, flow: Flow) -> bool:
    """True if the target is data, or whatever it is, if the two are only compared."""
    return _target(one, other, flow).name in flow.from_batch or _is_regression(node, flow)


def _is_regression(node: Node, flow: Flow) -> bool:
    """True if all that becomes of the two is the mean, or sum, of the differences' sizes."""
    if node.op is aten.broadcast_tensors.default:
        return all(taker.op in REGRESSIONS for taker in flow.users.get(node.name, ()))
    sizes = list(flow.takers(node)) if node.op is aten.sub.Tensor else []
    means = [taker for size in sizes for taker in flow.takers(size)]
    return (
        bool(means) and all(size.op in SIZES or _squares(size) for size in sizes) and all(m.op in MEANS for m in means)
    )


def _squares(node: Node) -> bool:
    return node.op is aten.mul.Tensor and node.arguments["self"] == node.arguments["other"]


def _unknown(names: set[str], flow: Flow) -> bool:
    """True if a tensor from before the recording is among these: data that no loader gave, or a constant of the loss."""
    leaves = (flow.graph.leaves[name] for name in names if name in flow.graph.leaves)
    return any(leaf.kind == "constant" and leaf.value.numel() > 1 for leaf in leaves)


def _undecided(node: Node, one: Ref, other: Ref, flow: Flow) -> str:
    shapes = " and ".join(str(tuple(flow.value(ref).shape)) for ref in (one, other))
    return (
        f"{node.source or node.where} broadcasts {shapes}, and one of them was made before the model was called, by no "
        "DataLoader: it may be data or a constant of the loss"
    )


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
