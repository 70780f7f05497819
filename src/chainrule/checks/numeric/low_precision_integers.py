"""low-precision-integers: whole numbers held in a dtype that cannot tell them apart.

What it checks
    Positions, counts and ids that the model computes in bfloat16 or float16: each value against the same in float64.
Why it matters
    bfloat16 has 8 bits of precision: 257 is stored as 256, and from 512 on only every fourth number exists. Positions of a
    long text then coincide, and what is looked up or rotated by them is wrong, only for long inputs and without a word.
How it decides
    A value that is whole in float64, exceeds 256 (bfloat16) or 2048 (float16), and differs from what the user's dtype
    holds; a warning if more than one in a hundred entries does.
Broken
    positions = torch.arange(600, dtype=torch.bfloat16)
Repaired
    positions = torch.arange(600).float()
Limits
    Only the lengths of the first batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Spec, Value

NAME = "low-precision-integers"
NARROW = {torch.bfloat16: 256, torch.float16: 2048}
SHARE = 0.01


def check(subject: Subject) -> Outcome:
    """Compare whole numbers in low precision with the exact ones."""
    nodes = [node for node in subject.graph.nodes if isinstance(node.spec, Spec) and node.spec.dtype in NARROW]
    if not nodes:
        return NotRun("nothing is computed in bfloat16 or float16")
    values, findings, blamed = evaluate(subject.graph), [], set()
    for node in nodes:
        exact = subject.values.get(node.name)
        if not isinstance(exact, Tensor) or not (wrong := _wrong(node, values[node.name], exact)):
            continue
        if not any(ref.name in blamed for ref in node.refs()):
            findings.append(_finding(node, wrong, exact, subject))
        blamed.add(node.name)
    return findings


def _wrong(node: Node, held: Value, exact: Tensor) -> int:
    """How many whole numbers the node does not hold exactly."""
    assert isinstance(node.spec, Spec)
    if held.shape != exact.shape or exact.numel() == 0 or not bool((exact == exact.round()).all()):
        return 0
    wrong = int(((held.double() != exact) & (exact.abs() > NARROW[node.spec.dtype]) & exact.isfinite()).sum())
    return wrong if wrong > SHARE * exact.numel() else 0


def _finding(node: Node, wrong: int, exact: Tensor, subject: Subject) -> Finding:
    assert isinstance(node.spec, Spec)
    largest = float(exact[exact.isfinite()].max())
    dtype = str(node.spec.dtype).removeprefix("torch.")
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{wrong:,} whole numbers up to {largest:g} are held in {dtype}, which cannot tell them apart",
        evidence={"wrong": wrong, "of": exact.numel(), "largest": largest, "dtype": dtype},
        rows=(
            (
                "not held exactly",
                f"{wrong:,} of {exact.numel():,}",
                f"{dtype} is exact up to {NARROW[node.spec.dtype]}",
            ),
        ),
        notes=(
            "Keep positions, ids and counts in an integer dtype or in float32, and cast what is computed from them.",
        ),
        reproduce=subject.reproduce(NAME),
    )
