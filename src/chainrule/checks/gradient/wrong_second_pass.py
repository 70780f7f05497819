"""wrong-second-pass: a custom autograd.Function is right once, and spoils another pass or what comes before it.

What it checks
    With custom Functions in the model: that two passes accumulate to the sum of each alone; that backward twice through one
    graph gives the same gradient twice, and leaves the first one as it was; that the gradient is the same when each
    Function gets clones of its inputs.
Why it matters
    A kernel that returns one static buffer, overwrites what it saved, writes param.grad in place of adding to it, or uses
    its input's memory for its output passes a check of one step. With accumulation, two losses or a saved activation
    before it, the gradient is wrong and nothing is raised.
How it decides
    Each comparison is relative to the gradient's norm, against 100 u of the dtype or three times what two equal passes
    differ by, whichever is larger. The second of two accumulated passes has its loss scaled by -1/2, so that a buffer that
    is used twice cannot be right by chance. An error.
Broken
    def backward(ctx, g):
        torch.mul(g, ctx.scale, out=BUFFER)
        return BUFFER.view_as(g)
Repaired
    def backward(ctx, g):
        return g * ctx.scale
Limits
    A Function whose backward refuses to run twice is looked at by accumulation alone. One process, no CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.functions import Applied, applications, functions_of
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import unit

NAME = "wrong-second-pass"
ROUNDING = 100  # units of rounding: passes of one process repeat bit for bit, sums of two may round differently
SCALE = -0.5
FLOOR = 1e-3  # of the parameters' mean norm: below that a gradient may be rounding and nothing else
Gradients = Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Wrong:
    """One comparison that failed: what was done, by how much the parameter's gradient is off, and what is to blame."""

    what: str
    path: str
    error: float
    allowed: float
    advice: str


def check(subject: Subject) -> Outcome:
    """The first comparison that fails; the others would repeat it."""
    applied, _ = functions_of(subject)
    if not applied:
        return NotRun("no custom autograd.Function is applied")
    wrong = on_copies(subject.setup, subject.batch, lambda copies: next(_comparisons(copies), None), seed=subject.seed)
    return [] if wrong is None else [_finding(subject, wrong, applied)]


def _comparisons(copies: Copies) -> Iterator[Wrong]:
    first, again, scaled = _alone(copies, 1.0), _alone(copies, 1.0), _alone(copies, SCALE)
    noise = max(_distances(first, again).values(), default=0.0)
    allowed = max(3 * noise, ROUNDING * max(unit(t.dtype) for t in copies.trainable.values()))
    yield from _differing(
        "an input is overwritten in forward, and what comes before it needs it",
        _alone(copies, 1.0, on_clones=True),
        first,
        allowed,
        "Write the result into memory of its own, or declare the input by ctx.mark_dirty.",
    )
    yield from _differing(
        "two passes do not accumulate to the sum of each alone",
        {path: _sum(a, scaled[path]) for path, a in first.items()},
        _both(copies),
        allowed,
        "Return a new tensor from backward each time, and let autograd add to .grad.",
    )
    yield from _twice(copies, allowed)


def _twice(copies: Copies, allowed: float) -> Iterator[Wrong]:
    """Backward twice through one graph."""
    leaves, loss = copies.trainable, copies.loss()
    held = torch.autograd.grad(loss, [*leaves.values()], retain_graph=True, allow_unused=True)
    kept = {path: None if g is None else g.clone() for path, g in zip(leaves, held, strict=True)}
    try:
        second = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True)
    except RuntimeError:
        return
    advice = "Do not write into what ctx saved; return a new tensor each time."
    what = "a second backward through the same graph gives another gradient"
    yield from _differing(what, kept, dict(zip(leaves, second, strict=True)), allowed, advice)
    what = "a second backward overwrites the gradient that the first one returned"
    yield from _differing(what, kept, dict(zip(leaves, held, strict=True)), allowed, advice)


def _alone(copies: Copies, scale: float, *, on_clones: bool = False) -> Gradients:
    """The gradients that one backward leaves in .grad."""
    _clear(copies)
    with applications(on_clones=on_clones):
        (copies.loss() * scale).backward()  # type: ignore[no-untyped-call]
    return _grads(copies)


def _both(copies: Copies) -> Gradients:
    _clear(copies)
    for scale in (1.0, SCALE):
        (copies.loss() * scale).backward()  # type: ignore[no-untyped-call]
    return _grads(copies)


def _clear(copies: Copies) -> None:
    for tensor in copies.trainable.values():
        tensor.grad = None


def _grads(copies: Copies) -> Gradients:
    return {path: None if t.grad is None else t.grad.clone() for path, t in copies.trainable.items()}


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


def _distances(first: Gradients, second: Gradients) -> dict[str, float]:
    """‖first − second‖ / ‖first‖ of each parameter; one whose gradient is zero within rounding is measured by the others."""
    sizes = {path: 0.0 if g is None else float(g.double().norm()) for path, g in first.items()}
    floor = FLOOR * (sum(size * size for size in sizes.values()) / max(len(sizes), 1)) ** 0.5
    distances = {}
    for path, gradient in first.items():
        other = second[path]
        if gradient is None or other is None:
            distances[path] = 0.0 if gradient is other else 1.0
        else:
            apart = float((gradient.double() - other.double()).norm())
            distances[path] = apart / max(sizes[path], floor) if apart else 0.0
    return distances


def _differing(what: str, expected: Gradients, found: Gradients, allowed: float, advice: str) -> Iterator[Wrong]:
    errors = _distances(expected, found)
    worst = max(errors, key=lambda path: errors[path], default=None)
    if worst is not None and errors[worst] > allowed:
        yield Wrong(what, worst, errors[worst], allowed, advice)


def _finding(subject: Subject, wrong: Wrong, applied: list[Applied]) -> Finding:
    writers = [one for one in applied if one.wrote]
    suspects = writers if "overwritten in forward" in wrong.what and writers else applied
    names = sorted({one.name for one in suspects})
    return Finding(
        check=NAME,
        severity="error",
        where=f"{', '.join(names[:3])} ({wrong.path})",
        source=suspects[0].line,
        message=f"{wrong.what}: the gradient of {wrong.path} is off by {wrong.error:.1e} of its norm",
        evidence={"parameter": wrong.path, "error": wrong.error, "allowed": wrong.allowed, "functions": names},
        rows=(("difference", f"{wrong.error:.2e}", f"of the norm; allowed {wrong.allowed:.1e}"),),
        notes=(wrong.advice,),
        reproduce=subject.reproduce(NAME),
    )
