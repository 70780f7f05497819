"""compiled-eager: the compiled model does not compute what the eager one does.

What it checks
    Loss and gradients of the compiled loss(model, batch) (torch.compile, inductor) against those of the eager one. Only on
    request (--only compiled-eager): compiling takes time.
Why it matters
    Compilers have dropped in-place additions and zeroed gradients of slices while the forward was right. Code that asks
    whether it is being compiled may take another path.
How it decides
    Both are measured against float64: the compiled gradient may be four times as far from it as the eager one, plus
    8 u √n of its norm for n formulas of unit roundoff u. More is an error.
Broken
    y = x * torch.sigmoid(1.7 * x) if torch.compiler.is_compiling() else F.gelu(x)
Repaired
    y = F.gelu(x)
Limits
    Eval mode, so that both draw no random numbers. One set of shapes.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import torch

from chainrule.checks.copies import Pass, run_pass
from chainrule.checks.equivalence.rows import attempt, difference, exact_pass
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import unit

NAME = "compiled-eager"
BACKEND = "inductor"


def check(subject: Subject) -> Outcome:
    """Compare compiled and eager, both against float64."""
    setup = subject.setup
    with warnings.catch_warnings():  # the compiler imports what warns of itself
        warnings.simplefilter("ignore")
        compiled = replace(setup, loss=torch.compile(setup.loss, backend=BACKEND, dynamic=False))
        ways = [
            attempt(partial(run_pass, way, subject.batch, training=False, seed=subject.seed))
            for way in (setup, compiled)
        ]
    exact = exact_pass(subject, subject.batch)
    for way in (*ways, exact):
        if isinstance(way, NotRun):
            return way
    eager, fast, truth = (way for way in (*ways, exact) if isinstance(way, Pass))
    rounding = 8 * unit(eager.loss.dtype) * len(subject.graph.nodes) ** 0.5
    own, theirs = difference(truth, eager), difference(truth, fast)
    return [_finding(eager, fast, own, theirs, subject)] if theirs > 4 * own + rounding else []


def _finding(eager: Pass, fast: Pass, own: float, theirs: float, subject: Subject) -> Finding:
    worst = max(eager.gradients, key=lambda path: _gap(eager, fast, path))
    return Finding(
        check=NAME,
        severity="error",
        where=worst,
        message="the compiled model's gradient is not the eager one's",
        evidence={"eager": own, "compiled": theirs, "loss": float(eager.loss), "compiled_loss": float(fast.loss)},
        rows=(
            ("eager", f"{own:.1e}", "distance of the gradient from float64, relative"),
            ("compiled", f"{theirs:.1e}", f"worst in {worst}"),
        ),
        notes=("Compile part by part to find the place, or train eagerly and report it to PyTorch.",),
        reproduce=subject.reproduce(NAME),
    )


def _gap(one: Pass, other: Pass, path: str) -> float:
    g, h = one.gradients[path], other.gradients.get(path)
    return (
        0.0 if g is None or h is None else float((g.double() - h.double()).norm() / g.double().norm().clamp_min(1e-300))
    )
