"""near-overflow: activations close to the largest float16 number.

What it checks
    The largest value of everything that the model computes in float16, taken from the float64 evaluation.
Why it matters
    float16 ends at 65,504. Activations of 40,000 are one unlucky batch away from inf, and inf - inf is nan.
How it decides
    Above half of the largest float16 number, before a mask is added: negative numbers are left out, since masks are made of
    them. A warning.
Broken
    h = (x.half() * 200) @ (w.half() * 200)
Repaired
    h = (x.half() @ w.half()) / 8
Limits
    One batch at the beginning of training. bfloat16 has the range of float32 and is not looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Spec

NAME = "near-overflow"
LARGEST = float(torch.finfo(torch.float16).max)


def check(subject: Subject) -> Outcome:
    """Look at the largest value of every float16 node; the first one above the limit is named."""
    half = [node for node in subject.graph.nodes if isinstance(node.spec, Spec) and node.spec.dtype is torch.float16]
    if not half:
        return NotRun("nothing is computed in float16")
    sizes = ((node, _largest(subject.values.get(node.name))) for node in half)
    return [_finding(node, size, subject) for node, size in sizes if size > LARGEST / 2][:1]


def _largest(value: object) -> float:
    return float(value.max()) if isinstance(value, Tensor) and value.numel() else 0.0


def _finding(node: Node, size: float, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"values up to {size:.4g} in float16, which ends at {LARGEST:,.0f}",
        evidence={"largest": size, "limit": LARGEST},
        rows=(("largest value", f"{size:.4g}", f"float16 ends at {LARGEST:,.0f}"),),
        notes=("Scale before the product (divide the query, not the scores), or compute this in bfloat16 or float32.",),
        reproduce=subject.reproduce(NAME),
    )
