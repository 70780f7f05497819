"""bounded-output: the outputs cannot reach the targets.

What it checks
    The last activation before a regression loss (mean squared, absolute, Huber, or a difference written by hand) against
    the range of the targets.
Why it matters
    A sigmoid gives no number above 1. If the targets are prices it saturates, its gradient vanishes, and the loss stays.
How it decides
    By the targets of the first batch that lie outside the activation's range (a ReLU's range is 0 and above) by more than
    a tenth of that range: more than half of them is an error, more than a tenth a warning.
Broken
    prediction, target = torch.sigmoid(torch.randn(8)), torch.arange(8.0) * 200
Repaired
    prediction, target = torch.randn(8), torch.arange(8.0) / 4
Limits
    One batch. A difference that the model takes inside itself is not looked at. Targets inside the range that only crowd at
    one end are not seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from chainrule.checks.flow import REARRANGING, REGRESSIONS, SELECTING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, op_name

NAME = "bounded-output"
aten = torch.ops.aten
RANGES = {
    aten.sigmoid.default: (0.0, 1.0),
    aten.softmax.int: (0.0, 1.0),
    aten._softmax.default: (0.0, 1.0),
    aten.hardsigmoid.default: (0.0, 1.0),
    aten.tanh.default: (-1.0, 1.0),
    aten.relu.default: (0.0, math.inf),
    aten.softplus.default: (0.0, math.inf),
    aten.exp.default: (0.0, math.inf),
}
SLACK, MOST, SOME = 0.1, 0.5, 0.1


def check(subject: Subject) -> Outcome:
    """Compare each last activation's range with the targets."""
    flow = Flow(subject.exact, subject.values)
    pairs = list(_pairs(flow))
    if not pairs:
        return NotRun("no regression loss compares a model's output with the batch")
    shares = ((node, last, target, _outside(last, flow.value(target))) for node, last, target in pairs)
    return [
        _finding(node, last, flow.value(target), share, subject) for node, last, target, share in shares if share > SOME
    ]


def _pairs(flow: Flow) -> Iterator[tuple[Node, Node, Ref]]:
    """(loss or difference, last activation, target) wherever a prediction is compared with the batch."""
    compared = [(node, guess, target) for node, guess, target in flow.losses() if node.op in REGRESSIONS]
    for node in flow.graph.nodes:
        if (
            node.op is aten.sub.Tensor
            and not node.stack
            and all(isinstance(node.arguments[name], Ref) for name in ("self", "other"))
        ):
            one, other = node.arguments["self"], node.arguments["other"]
            compared.append((node, one, other) if one in flow.active else (node, other, one))
    for node, guess, target in compared:
        last = flow.maker(guess, through=REARRANGING | SELECTING)
        free = target not in flow.active and target.name in flow.from_batch
        if free and isinstance(last, Node) and (last.op in RANGES or last.op is aten.hardtanh.default):
            yield node, last, target


def _range(last: Node) -> tuple[float, float]:
    if last.op is aten.hardtanh.default:
        return float(last.arguments["min_val"]), float(last.arguments["max_val"])
    return RANGES[last.op]


def _outside(last: Node, target: Tensor) -> float:
    low, high = _range(last)
    slack = SLACK * (high - low) if math.isfinite(high) else SLACK * float(target.abs().max())
    return float(((target < low - slack) | (target > high + slack)).double().mean())


def _finding(node: Node, last: Node, target: Tensor, share: float, subject: Subject) -> Finding:
    low, high = _range(last)
    return Finding(
        check=NAME,
        severity="error" if share > MOST else "warning",
        where=last.where,
        source=line_of(last.source if last.module else node.source),
        message=f"{share:.0%} of the targets lie outside what the last {op_name(last.op)} can give",
        evidence={"outside": share, "lowest": low, "highest": str(high), "maximum": float(target.max())},
        rows=(
            ("outputs", f"{low:g} .. {high:g}", f"range of {op_name(last.op)}"),
            ("targets", f"{float(target.min()):.4g} .. {float(target.max()):.4g}", "first batch"),
        ),
        notes=("End the model in a plain linear layer, or bring the targets into the range.",),
        reproduce=subject.reproduce(NAME),
    )
