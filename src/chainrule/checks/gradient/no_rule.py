"""no-rule: a formula on the gradient path that chainrule has no derivative rule for.

What it checks
    Every op through which a gradient flows has a rule, itself or after PyTorch has written it out in smaller ops.
Why it matters
    Without a rule the chain rule is taken numerically there: it holds for this formula, but it is no second derivation.
How it decides
    By the table of rules. Each such formula is named; the verdict is then at best UNRESOLVED.
Broken
    an op of an extension library that calls its own kernel
Repaired
    the same formula in torch operations, or a rule for it (CONTRIBUTING, "add a derivative rule")
Limits
    A custom autograd.Function needs no rule: the torch operations in its forward have theirs.
"""

from __future__ import annotations

import time

from chainrule.autodiff.reverse import without_rule
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.graph import Node

NAME = "no-rule"


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Name the formulas on the gradient path that have no rule."""
    start = time.perf_counter()
    findings = [_finding(node, subject) for node in without_rule(subject.graph)]
    summary = f"{len(findings)} formulas without a rule, taken numerically" if findings else "every formula has a rule"
    verdict: Verdict = "unresolved" if findings else "pass"
    return StageResult("0 rules", verdict, summary, None, time.perf_counter() - start), findings


def _finding(node: Node, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{node.op} has no derivative rule; its gradient was taken by differences",
        evidence={"node": node.name, "op": str(node.op)},
        notes=("What rests on this formula is not proved. Write it in torch operations, or add a rule.",),
        reproduce=subject.reproduce(NAME),
        unresolved=True,
    )
