"""rule-mismatch: a formula's derivative rule is not the slope of the formula.

What it checks
    Each unit formula of the graph alone, at the model's own numbers: its rule against a difference quotient of the formula.
Why it matters
    Chain rule and autograd could share a mistake about a built-in formula; a difference quotient knows no calculus.
How it decides
    For a random cotangent g and a random tangent u, ⟨rule(g), u⟩ against a central difference of ⟨g, f(x + t u)⟩ with its
    error bar, branches held: of order 4 where its bar is narrow and the two agree, else of order 8. FAIL beyond three bars;
    UNRESOLVED if the bar exceeds 1e-6 of the scale.
Broken
    a rule scaled by 1.001
Repaired
    the rule as it is
Limits
    One random direction for each formula: a single wrong entry of a large tensor shows only if it is not small.
"""

from __future__ import annotations

import time

from chainrule.autodiff.reverse import active_values, output_refs
from chainrule.checks.subject import Subject, line_of
from chainrule.compare.local import LocalResult, local_check
from chainrule.derivatives import FLAT, RULES
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.graph import Node
from chainrule.tolerance import REQUIRED_RESOLUTION, numerical_limit

NAME = "rule-mismatch"


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 2: every formula's rule against differences of that formula alone."""
    start = time.perf_counter()
    generator = subject.generator(2)
    findings: list[Finding] = []
    nodes = formulas(subject)
    resolution = 0.0
    for node in nodes:
        result = local_check(node, subject.values, RULES[node.op], generator)
        if result is None:
            continue
        bar = float(result.estimate.bar or 0.0)
        if abs(result.analytic - float(result.estimate.value)) > numerical_limit(bar, result.scale).value:
            findings.append(_mismatch(node, result, subject))
        elif bar > REQUIRED_RESOLUTION * result.scale:
            findings.append(_unresolved(node, result, subject))
        elif result.scale:
            resolution = max(resolution, bar / result.scale)
    kinds = len({node.op for node in nodes})
    summary = f"{len(nodes)} formulas of {kinds} kinds, each alone: rule = difference quotient"
    failed = any(finding.severity == "error" for finding in findings)
    verdict: Verdict = "fail" if failed else "unresolved" if findings else "pass"
    return StageResult("2 each formula", verdict, summary, resolution, time.perf_counter() - start), findings


def formulas(subject: Subject) -> list[Node]:
    """The nodes through which gradients flow, in order."""
    active = active_values(subject.exact)
    return [
        node
        for node in subject.exact.nodes
        if node.op in RULES and node.op not in FLAT and any(ref in active for ref in output_refs(node))
    ]


def _mismatch(node: Node, result: LocalResult, subject: Subject) -> Finding:
    bar = float(result.estimate.bar or 0.0)
    return Finding(
        check=NAME,
        severity="error",
        where=node.where,
        source=line_of(node.source),
        message="the derivative rule of this formula is not its slope",
        evidence={
            "node": node.name,
            "chain_rule": result.analytic,
            "numerical": float(result.estimate.value),
            "numerical_bar": bar,
        },
        rows=(
            ("chain rule (float64)", f"{result.analytic:.6e}", " ".join(RULES[node.op].formula.split())),
            (
                f"numerical (order 8, h={float(result.estimate.h):.1e})",
                f"{float(result.estimate.value):.6e}",
                f"± {bar:.0e}",
            ),
        ),
        notes=("chainrule's own rule is wrong for these arguments, or the formula jumps here. Please report it.",),
        reproduce=subject.reproduce(NAME),
    )


def _unresolved(node: Node, result: LocalResult, subject: Subject) -> Finding:
    bar = float(result.estimate.bar or 0.0)
    sight = bar / result.scale if result.scale else float("inf")
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"an error below {sight:.1e} of this formula's gradient would not have been seen; "
        f"{REQUIRED_RESOLUTION:.0e} is required",
        evidence={"node": node.name, "resolution": sight, "required": REQUIRED_RESOLUTION},
        notes=("The formula is so curved or so noisy at these numbers that no step is good enough.",),
        reproduce=subject.reproduce(NAME),
        unresolved=True,
    )
