"""gradient-mismatch: a backward that the user wrote is not the derivative of its forward.

What it checks
    The backward that really runs in the user's own eager model. Every tensor's gradient, as autograd produced it, against
    the chain rule applied to what the next formulas received: first in float64 (stage 1b), then in the user's own dtype
    (stage 3).
Why it matters
    A custom autograd.Function, a fused kernel or a hook with a wrong backward raises nothing. Training goes on, worse.
How it decides
    r = x̄(recorded) - Σ ȳ(recorded) · ∂y/∂x. In float64: ‖r‖ <= 1e-10 of the gradient, or 1000 u of the terms that cancel.
    In a lower precision r is read in units of the dtype's rounding, as a norm, at its worst entry and as a bias along the
    gradient, each against torch's own derivative of the same formula on the same numbers (see tolerance.residual_limits).
    No error travels from formula to formula, so a nonzero residual is the place.
Broken
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x
Repaired
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x
        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 * x
Limits
    An error smaller than the rounding of the user's dtype is seen only in float64 (stage 1b), if the Function accepts it.
    A backward that is meant to differ (straight-through, gradient reversal) is named in Setup.surrogate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from chainrule.autodiff.reverse import reverse
from chainrule.capture import promote
from chainrule.capture.tape import Tape, record
from chainrule.capture.tape_functions import Application
from chainrule.checks.subject import Subject, line_of
from chainrule.compare.blame import guilty, numerical_entry
from chainrule.compare.pattern import constant_ratio, hints
from chainrule.compare.residual import Residual, double, residuals
from chainrule.derivatives import RULES
from chainrule.errors import CaptureError
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.graph import Node, Ref, Source, op_name
from chainrule.tolerance import AGREEMENT, residual_limits, unit

NAME = "gradient-mismatch"
ALL = 1e3  # an error a thousand times what is left without it: the right gradient is zero within rounding
_FRACTIONS = {0.5: "half", 2.0: "twice", -1.0: "minus", 0.25: "a quarter of", 0.0: "zero instead of"}


def check_in_float64(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 1b: the user's own backward, run by autograd in float64."""
    start = time.perf_counter()
    name = "1b your backward"
    if not any(node.function for node in subject.graph.nodes):
        return StageResult(name, None, "no custom autograd.Function: stage 1 has run all there is"), []
    try:
        tape = record(subject.setup.model, subject.setup.loss, subject.batch, dtype=torch.float64)
    except CaptureError as error:
        return StageResult(name, None, f"not possible in float64: {error}"), []
    return _stage(name, subject, tape, start)


def check_in_own_dtype(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 3: the user's own backward as it runs in training, in the user's dtype."""
    start = time.perf_counter()
    tape = subject.recorded
    stage, findings = _stage("3 eager backward", subject, tape, start)
    unseen = [_unseen(application, subject) for application in tape.applications if application.opaque]
    if unseen and stage.verdict == "pass":
        stage = replace(stage, verdict="unresolved", summary=f"{stage.summary}, but {len(unseen)} cannot be seen")
    return stage, [*findings, *unseen]


def _stage(name: str, subject: Subject, tape: Tape, start: float) -> tuple[StageResult, list[Finding]]:
    wrong: list[Residual] = []
    seen, resolution = 0, 0.0
    opaque = (application.gradients for application in tape.applications if application.opaque)
    given = {ref: gradient for gradients in opaque for ref, gradient in gradients.items()}
    for residual in residuals(tape.graph, tape.values, tape.adjoints, given):
        seen += 1
        ok, sight = judge(residual)
        resolution = max(resolution, sight)
        if not ok and not _meant(residual, subject, tape):
            wrong.append(residual)
    findings = _findings(wrong, subject, tape)
    dtypes = sorted({str(leaf.value.dtype).removeprefix("torch.") for leaf in tape.graph.parameters.values()})
    summary = f"gradients of all {seen:,} tensors of your own {'/'.join(dtypes)} run follow the chain rule"
    if findings:
        summary = f"{len(wrong)} of {seen:,} tensors of your own {'/'.join(dtypes)} run do not follow the chain rule"
    verdict: Verdict = "fail" if findings else "pass"
    return StageResult(name, verdict, summary, resolution, time.perf_counter() - start), findings


def _unseen(application: Application, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=f"{application.stack[-1][0] if application.stack else ''}.{application.name}".removeprefix("."),
        source=line_of(application.source),
        message=f"the backward of {application.name} is not checked: its forward cannot be seen",
        evidence={"function": application.name},
        notes=(
            "Its forward computes outside torch (NumPy, a compiled kernel). What its backward returns was taken as given; "
            "check it alone by differences, or hand chainrule a forward in torch operations.",
        ),
        reproduce=subject.reproduce(NAME),
        unresolved=True,
    )


def judge(residual: Residual) -> tuple[bool, float]:
    """(the backward is right here, smallest error relative to this gradient's norm that would have been seen)."""
    expected = float(residual.expected.norm())
    if residual.u <= unit(torch.float64):
        bound = residual.bound_norm
        limit = max(AGREEMENT * expected, 1000 * residual.u * bound)
        return residual.size <= limit, limit / expected if limit < expected else 0.0
    stock, found = residual.stock, residual.units
    norm, entry, bias = residual_limits(stock.norm, stock.entry, stock.bias)
    ok = found.norm <= norm.value and found.entry <= entry.value and found.bias <= bias.value
    limit = norm.value * residual.u * residual.bound_norm
    return ok, limit / expected if limit < expected else 0.0


def _meant(residual: Residual, subject: Subject, tape: Tape) -> bool:
    """Whether a formula that uses this value, or a Function that was given it, lies in a module that is meant to differ."""
    given = [a.stack[-1][0] for a in tape.applications if a.stack and residual.ref in a.inputs]
    modules = [*(node.module for node in residual.consumers), *given]
    return any(_inside(module, path) for module in modules for path in subject.setup.surrogate)


def _inside(module: str, path: str) -> bool:
    return module == path or module.startswith(f"{path}.")


def _findings(wrong: list[Residual], subject: Subject, tape: Tape) -> list[Finding]:
    """One finding for each guilty formula, whatever the number of gradients that it spoils; the largest residual speaks."""
    groups: dict[tuple[str, str], list[tuple[Residual, Node | None]]] = {}
    for residual in wrong:
        node = guilty(residual, tape.values, tape.adjoints)
        key = (node.module, node.function or node.name) if node else ("", str(residual.ref))
        groups.setdefault(key, []).append((residual, node))
    findings = []
    for group in groups.values():
        residual, node = max(group, key=lambda pair: pair[0].relative)
        findings.append(_finding(residual, node, [other.ref for other, _ in group], subject, tape))
    return findings


def _finding(residual: Residual, node: Node | None, refs: list[Ref], subject: Subject, tape: Tape) -> Finding:
    yours, truth = residual.recorded, residual.expected
    worst = (yours - truth).abs()
    index = tuple(int(i) for i in torch.unravel_index(worst.argmax(), worst.shape))
    exact = promote(tape.graph, torch.float64)
    vote = numerical_entry(exact, tape.values, tape.adjoints, residual.ref, index)
    formula = _formula(node)
    what = node.function or op_name(node.op) if node else str(residual.ref)
    where = f"{node.module}.{what}".strip(".") if node else str(residual.ref)
    differ = int((worst > 1e-3 * worst.max()).sum())
    return Finding(
        check=NAME,
        severity="error",
        where=where,
        source=line_of(_source(node, tape)),
        message=_message(residual),
        evidence={
            "node": node.name if node else str(residual.ref),
            "shape": str(tuple(yours.shape)),
            "dtype": _dtype(residual.ref, tape),
            "index": list(index),
            "yours": float(yours[index]),
            "chain_rule": float(truth[index]),
            "numerical": float(vote.value),
            "numerical_bar": float(vote.bar) if vote.bar is not None else None,
            "relative_error": residual.relative,
            "units_of_rounding": residual.units.norm,
            "wrong_values": [_name(ref, tape) for ref in refs],
            "affected_parameters": dict(_budget(residual, tape)),
        },
        rows=(
            (
                "yours (torch.autograd)",
                f"{float(yours[index]):.6e}",
                f"gradient of {_name(residual.ref, tape)} at {index}",
            ),
            ("chain rule (float64)", f"{float(truth[index]):.6e}", formula),
            (
                f"numerical (order 8, h={float(vote.h):.1e})",
                f"{float(vote.value):.6e}",
                f"± {float(vote.bar or 0):.0e}",
            ),
        ),
        notes=(
            f"{differ:,} of {worst.numel():,} elements differ ({differ / worst.numel():.1%}); the difference is "
            f"{residual.relative:.1e} of the right gradient's norm, {residual.units.norm:.3g} units of "
            f"{_dtype(residual.ref, tape)} rounding (torch's own derivative: {residual.stock.norm:.2g})",
            *(hint[0].upper() + hint[1:] for hint in hints(yours, truth)[:2]),
            *_effects(residual, tape),
        ),
        reproduce=subject.reproduce(NAME),
    )


def _source(node: Node | None, tape: Tape) -> Source | None:
    """The user's line: of a custom Function the one that applies it, of any other formula its own."""
    if node is None:
        return None
    applied = [application.source for application in tape.applications if node.name in application.nodes]
    return applied[0] if applied else node.source


def _message(residual: Residual) -> str:
    ratio = constant_ratio(residual.recorded, residual.expected)
    if float(residual.expected.norm()) == 0:
        return "your backward passes a gradient where the derivative is zero"
    if ratio is None:
        return f"your gradient is not the chain rule's: {residual.relative:.1e} of its norm is wrong"
    words = next((word for value, word in _FRACTIONS.items() if abs(ratio - value) < 1e-3), f"{ratio:.4g} times")
    return f"your gradient is {words} the chain rule's"


def _formula(node: Node | None) -> str:
    rule = RULES.get(node.op) if node else None
    if node is None or rule is None:
        return ""
    inside = f"derivative of the forward of {node.function}; first formula: " if node.function else ""
    return inside + " ".join(rule.formula.split())


def _name(ref: Ref, tape: Tape) -> str:
    leaf = tape.graph.leaves.get(ref.name)
    return leaf.path if leaf is not None else str(ref)


def _dtype(ref: Ref, tape: Tape) -> str:
    value = tape.values[ref.name]
    return str((value if ref.index is None else value[ref.index]).dtype).removeprefix("torch.")


def _budget(residual: Residual, tape: Tape) -> Iterator[tuple[str, float]]:
    """‖error‖ / ‖gradient without it‖ of each parameter for this one error: the adjoint system is linear, so seed it with r.

    If it is the only error, what the gradient is without it is right, and the share is one of the right gradient's norm, as
    `Residual.relative` is.
    """
    values = {name: double(value) for name, value in tape.values.items()}
    spread = reverse(tape.graph, values, seeds={residual.ref: residual.recorded - residual.expected}, keep_all=False)
    for path, leaf in tape.graph.parameters.items():
        effect, whole = spread.get(Ref(leaf.name)), tape.adjoints.get(Ref(leaf.name))
        if effect is not None and whole is not None and float(effect.norm()) > 0:
            yield path, float(effect.norm() / (whole.double() - effect).norm().clamp_min(1e-300))


def _effects(residual: Residual, tape: Tape) -> Iterator[str]:
    shares = sorted(_budget(residual, tape), key=lambda pair: -pair[1])
    if shares:
        named = ", ".join(f"{path} ({share:.1e})" if share < ALL else f"{path} (all)" for path, share in shares[:3])
        more = f" and {len(shares) - 3} more" if len(shares) > 3 else ""
        yield f"It spoils the gradients of {named}{more}; in brackets the error's share of the norm that each has without it."
