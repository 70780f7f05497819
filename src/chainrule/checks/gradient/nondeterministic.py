"""nondeterministic: two passes on the same numbers with the same random state give different gradients.

What it checks
    Loss and gradients of two eager passes that start from the same parameters, buffers, batch and generators.
Why it matters
    Memory that was never written (torch.empty), a race in a kernel, the time or the order of a set in forward: a run cannot
    be repeated, and a real fault hides behind it. Sums in another order on a GPU do the same in the last digits.
How it decides
    The norm of the difference over all parameters' gradients, relative to the gradient's, in units of rounding u. Up to
    100 u it is what another order of summation does, and only mentioned; above that, a warning with the measured size. The
    place is the first module whose inputs are the same and whose outputs are not.
Broken
    noise = torch.empty(x.shape[-1])
Repaired
    noise = torch.zeros(x.shape[-1])
Limits
    Two passes in one process; memory that happens to hold the same numbers twice looks deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.checks.copies import Copies, Pass, on_copies, run_pass
from chainrule.checks.subject import Subject
from chainrule.checks.watching import first_difference
from chainrule.finding import Finding, Outcome
from chainrule.tolerance import unit

NAME = "nondeterministic"
ROUNDING = 100  # units: what sums of some thousand terms in another order differ by


def check(subject: Subject) -> Outcome:
    """One finding if anything differs."""
    setup = subject.setup
    first, second = subject.own, run_pass(setup, subject.batch, seed=subject.seed)
    apart = {path: _distance(g, second.gradients.get(path)) for path, g in first.gradients.items()}
    if not any(apart.values()) and torch.equal(first.loss, second.loss):
        return []
    worst = max(apart, key=lambda path: apart[path])
    return [_finding(subject, worst, _units(first, apart), first, second)]


def _distance(first: Tensor | None, second: Tensor | None) -> float:
    if first is None or second is None:
        return 0.0 if first is second else float("inf")
    return float((first.double() - second.double()).norm())


def _units(first: Pass, apart: Mapping[str, float]) -> float:
    """‖difference‖ / u‖gradient‖ over all parameters: that of one alone may be rounding and nothing else."""
    gradients = [gradient for gradient in first.gradients.values() if gradient is not None]
    whole = math.hypot(*(float(gradient.double().norm()) for gradient in gradients))
    u = max((unit(gradient.dtype) for gradient in gradients), default=unit(torch.float32))
    return math.hypot(*apart.values()) / (u * whole) if whole else float("inf")


def _finding(subject: Subject, path: str, units: float, first: Pass, second: Pass) -> Finding:
    place = on_copies(subject.setup, subject.batch, _place, seed=subject.seed)
    apart = abs(float(first.loss) - float(second.loss))
    return Finding(
        check=NAME,
        severity="warning" if units > ROUNDING else "info",
        where=place or path,
        message=f"two passes with the same random state differ: the gradient by {units:.3g} units of rounding, most in {path}",
        evidence={"parameter": path, "units_of_rounding": units, "loss_difference": apart, "module": place},
        rows=(
            ("loss, first pass", f"{float(first.loss):.9g}", ""),
            ("loss, second pass", f"{float(second.loss):.9g}", f"{apart:.1e} apart"),
        ),
        notes=(
            "Look for memory that is never written (torch.empty), for the time, a file or the order of a set in forward, and "
            "for random numbers from outside torch, NumPy and random.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _place(copies: Copies) -> str | None:
    return first_difference(copies, copies.loss, copies.loss, lambda tensor: tensor)
