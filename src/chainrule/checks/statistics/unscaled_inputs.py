"""unscaled-inputs: numbers far from unit size enter the first layer.

What it checks
    The numbers, computed from the batch and from no parameter, that enter a layer with weights, unless a normalisation
    follows that layer.
Why it matters
    Initial weights are made for inputs of size 1. Pixels of 0 to 255 or prices of 1400 make the first outputs, and their
    gradients, hundreds of times too large; the learning rate that the other layers need then diverges.
How it decides
    The root mean square of the largest input column above 10 is a warning. The loss curves with the square of an input: at
    10 the stable learning rate is a hundredth of what it is at 1.
Broken
    x = torch.randint(0, 256, (8, 64)).float()
Repaired
    x = torch.randint(0, 256, (8, 64)).float() / 255
Limits
    Inputs that are much too small are seen as a vanishing signal by other checks, not here.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from chainrule.checks.flow import NORMS, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "unscaled-inputs"
LARGE = 10.0  # root mean square of a column


def check(subject: Subject) -> Outcome:
    """Look at what enters the first layers."""
    flow = Flow(subject.exact, subject.values)
    inputs = list(_inputs(flow))
    if not inputs:
        return NotRun("no numbers of the batch enter a layer directly")
    findings: dict[Ref, Finding] = {}
    for node, ref in inputs:
        size = _largest(node, flow.value(ref))
        if size > LARGE and not _normalised(node, flow):
            findings.setdefault(ref, _finding(node, flow.value(ref), size, subject))
    return list(findings.values())


def _inputs(flow: Flow) -> Iterator[tuple[Node, Ref]]:
    for node, inflow, _ in flow.layers():
        if inflow.name in flow.from_batch and inflow not in flow.active:
            yield node, inflow


def _largest(node: Node, value: Tensor) -> float:
    """Root mean square of the largest column: last axis of a matrix product, channel of a convolution."""
    columns = value.movedim(1, -1) if "conv" in str(node.op) and value.dim() > 2 else value
    return float(columns.flatten(0, -2).square().mean(0).max().sqrt()) if columns.dim() > 1 else 0.0


def _normalised(node: Node, flow: Flow) -> bool:
    takers = list(flow.takers(node))
    return bool(takers) and all(taker.op in NORMS for taker in takers)


def _finding(node: Node, value: Tensor, size: float, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.module or node.where,
        source=line_of(node.source),
        message=f"the inputs of the first layer have a root mean square of {size:.3g}",
        evidence={"rms": size, "minimum": float(value.min()), "maximum": float(value.max())},
        rows=(
            ("inputs", f"{float(value.min()):.4g} .. {float(value.max()):.4g}", "as they enter the layer"),
            ("largest column", f"{size:.4g}", f"root mean square; initial weights expect 1, allowed {LARGE:g}"),
        ),
        notes=("Subtract the mean of the training data and divide by its standard deviation (pixels: divide by 255).",),
        reproduce=subject.reproduce(NAME),
    )
