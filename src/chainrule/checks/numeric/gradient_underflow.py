"""gradient-underflow: gradients too small for float16 are flushed to zero.

What it checks
    The exact gradient (chain rule, float64) of every value that the model holds in float16, times the scale of the
    GradScaler if there is one, against the smallest number that float16 has.
Why it matters
    Below 6e-8 a float16 gradient is exactly 0. The loss is right and whole layers stand still.
How it decides
    The share of nonzero entries whose size is below half of the smallest float16 number, so that they round to zero. More
    than 5 % in a value, counted over all such values with a gradient, is a warning; with a scaler it should be none.
Broken
    loss = 1e-6 * model.half()(x).square().mean()
Repaired
    scaler = torch.amp.GradScaler(device="cpu")
Limits
    bfloat16 has the range of float32 and is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.flow import adjoints_above
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, Spec

NAME = "gradient-underflow"
SMALLEST = torch.finfo(torch.float16).smallest_normal * torch.finfo(torch.float16).eps  # the smallest subnormal, 6e-8
SHARE = 0.05


@dataclass(frozen=True, eq=False)
class Lost:
    """How much of a value's gradient rounds to zero: entries that do, entries that are not zero, their median size."""

    node: Node
    flushed: int
    nonzero: int
    median: float


def check(subject: Subject) -> Outcome:
    """Count the gradient entries that round to zero."""
    half = [node for node in subject.graph.nodes if isinstance(node.spec, Spec) and node.spec.dtype is torch.float16]
    if not half:
        return NotRun("nothing is computed in float16")
    known = {node.name for node in half if isinstance(subject.values.get(node.name), Tensor)}
    adjoints = adjoints_above(subject.exact, subject.values, known)
    scale = _scale(subject)
    lost = [result for node in half if (result := _lost(node, adjoints.get(Ref(node.name)), scale)) is not None]
    flushed, nonzero = sum(one.flushed for one in lost), sum(one.nonzero for one in lost)
    if flushed <= SHARE * nonzero:
        return []
    return [_finding(max(lost, key=lambda one: one.flushed / one.nonzero), flushed, nonzero, subject)]


def _lost(node: Node, adjoint: Tensor | None, scale: float) -> Lost | None:
    if adjoint is None or not bool((adjoint != 0).any()):
        return None
    sizes = adjoint[adjoint != 0].abs() * scale
    return Lost(node, int((sizes < SMALLEST / 2).sum()), sizes.numel(), float(sizes.median()))


def _scale(subject: Subject) -> float:
    scaler = subject.setup.scaler
    return float(scaler.get_scale()) if scaler is not None and hasattr(scaler, "get_scale") else 1.0


def _finding(worst: Lost, flushed: int, nonzero: int, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=worst.node.where,
        source=line_of(worst.node.source),
        message=f"{flushed / nonzero:.0%} of the float16 gradient entries are too small for float16 and become zero",
        evidence={"flushed": flushed, "nonzero": nonzero, "median": worst.median},
        rows=(
            ("median entry here", f"{worst.median:.2e}", f"exact; times the scale of {_scale(subject):g}"),
            ("smallest float16", f"{SMALLEST:.2e}", "below half of it rounds to zero"),
        ),
        notes=("Scale the loss with torch.amp.GradScaler, or compute in bfloat16.",),
        reproduce=subject.reproduce(NAME),
    )
