"""engine-disagreement: chain rule and autograd differ on the same float64 graph.

What it checks
    Every entry of every parameter's gradient by our rules against torch.autograd on the same graph, in true float64.
Why it matters
    It proves our rules and torch's derivatives of the built-in formulas against each other. It cannot see a backward that
    the user wrote: capture inlines a custom Function's forward. That is what gradient-mismatch is for.
How it decides
    ‖ours - autograd‖ <= 1e-10 of the gradient's norm, or 1000 u of the terms that cancel in it (a key's bias, a bias
    before batch norm): zero within rounding.
Broken
    a bug in torch or in chainrule
Repaired
    none on the user's side
Limits
    Both engines see the graph, not the user's Python: see forward-mismatch.
"""

from __future__ import annotations

import time

from chainrule.checks.subject import Subject
from chainrule.compare.agreement import Agreement, agreements
from chainrule.compare.by_autograd import autograd_value_and_grad
from chainrule.finding import Finding, StageResult, Verdict

NAME = "engine-disagreement"


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 1: our float64 gradient against autograd's on the promoted graph, entry by entry."""
    start = time.perf_counter()
    _, theirs = autograd_value_and_grad(subject.exact)
    compared = list(agreements(subject.exact, subject.values, subject.adjoints, theirs))
    subject.keep_gradients_only()
    wrong = [agreement for agreement in compared if not agreement.ok]
    entries = sum(agreement.entries for agreement in compared)
    worst = max((agreement.relative for agreement in compared if agreement.ok and agreement.norm), default=0.0)
    worst = min(worst, 1.0)
    summary = f"chain rule = autograd in all {entries:,} entries of {len(compared)} parameters, float64"
    if wrong:
        summary = f"chain rule and autograd differ in {len(wrong)} of {len(compared)} parameters"
    resolution = max((a.limit.value / a.norm for a in compared if a.norm and a.limit.value < a.norm), default=0.0)
    findings = [_finding(agreement, subject) for agreement in wrong]
    verdict: Verdict = "fail" if findings else "pass"
    return StageResult("1 chain rule", verdict, summary, resolution, time.perf_counter() - start), findings


def _finding(agreement: Agreement, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=agreement.path,
        message="our chain rule and torch.autograd differ on the same float64 graph",
        evidence={
            "difference": agreement.difference,
            "norm": agreement.norm,
            "allowed": agreement.limit.value,
            "relative": agreement.relative,
        },
        rows=(
            ("gradient", f"{agreement.norm:.3e}", "norm, torch.autograd"),
            (
                "difference",
                f"{agreement.difference:.3e}",
                f"allowed {agreement.limit.value:.1e}: {agreement.limit.reason}",
            ),
        ),
        notes=("One of the two is wrong about a built-in formula; stage 2 says which. Please report it.",),
        reproduce=subject.reproduce(NAME),
    )
