"""directional-mismatch: the whole gradient does not predict how the loss changes.

What it checks
    The slope of the loss along 8 random directions over all parameters jointly, by differences of the loss alone, against
    ⟨gradient, direction⟩. It is the only stage that looks at the model end to end.
Why it matters
    Each formula may be right and the whole still wrong: a gradient lost between formulas, a tie not summed.
How it decides
    Order-6 central differences with an error bar, branches held at the base point. FAIL if a slope is off by more than three
    bars at two step lengths. For Gaussian directions ⟨e, v⟩ is normal with the size of the whole error e, so the 8 slopes
    bound ‖e‖ by chi-square at 99.9 % confidence, wherever the error sits. Directions are scaled by each parameter's rms.
Broken
    a bug in chainrule's engine or capture
Repaired
    none on the user's side
Limits
    An error below the bound that the report prints is not seen. Branches are held, so a wrong branch condition is not seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate_loss
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.numdiff.directions import COUNT, error_bound, gaussian_directions
from chainrule.numdiff.noise import measure_noise
from chainrule.numdiff.stencils import Estimate, Line, order6
from chainrule.numdiff.steps import rms
from chainrule.tolerance import REQUIRED_RESOLUTION, numerical_limit

NAME = "directional-mismatch"
STEP = 0.002  # all parameters move at once, so a shorter step than for one entry, and order 6 is enough
SMALLEST_SCALE = 1e-3  # a parameter that is zero still moves


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 4: slopes along random directions end to end, with a bound on the error of the whole gradient."""
    start = time.perf_counter()
    scales = {path: max(rms(leaf.value), SMALLEST_SCALE) for path, leaf in subject.exact.parameters.items()}
    size = sum((scales[path] * float(g.norm())) ** 2 for path, g in subject.gradients.items()) ** 0.5
    generator = subject.generator(4)
    room = {path: torch.empty_like(leaf.value) for path, leaf in subject.exact.parameters.items()}
    claimed, estimates, noise = [], [], None
    for _ in range(COUNT):
        direction = gaussian_directions(subject.gradients, generator, scales)
        line = _line(subject, direction, room)
        noise = noise if noise is not None else measure_noise(line, spacing=1e-7).level
        claimed.append(sum(_inner(subject.gradients[path], v) for path, v in direction.items()))
        estimates.append(_slope(line, noise, size, claimed[-1]))
    errors = torch.tensor([c - float(e.value) for c, e in zip(claimed, estimates, strict=True)], dtype=torch.float64)
    bars = torch.tensor([float(e.bar) for e in estimates if e.bar is not None], dtype=torch.float64)
    bound = error_bound(errors, bars)
    resolution = bound.bound / size if size else 0.0
    wrong = [i for i in range(COUNT) if float(errors[i].abs()) > numerical_limit(float(bars[i]), size).value]
    findings = [_mismatch(subject, claimed, estimates, wrong)] if wrong else []
    if not findings and resolution > REQUIRED_RESOLUTION:
        findings = [_unresolved(subject, resolution)]
    verdict: Verdict = "fail" if wrong else "unresolved" if findings else "pass"
    summary = f"{COUNT} random slopes of the loss = gradient: whole error < {resolution:.0e} of it, 99.9 % confidence"
    if wrong:
        summary = f"{len(wrong)} of {COUNT} random slopes of the loss differ from the gradient's"
    return StageResult("4 directions", verdict, summary, resolution, time.perf_counter() - start), findings


def _slope(line: Line, noise: float, size: float, claimed: float) -> Estimate:
    """Order 6 at h = 0.002 of each parameter's rms; a shorter step where the loss bends too much for that.

    |D6 - D4| is small by accident where the two err alike, as along a layer norm of four features. So an estimate that
    disagrees is not believed before a step an eighth as long has said the same.
    """
    estimate = order6(line, STEP, noise)
    bar = float(estimate.bar) if estimate.bar is not None else 0.0
    disagrees = abs(claimed - float(estimate.value)) > numerical_limit(bar, size).value
    if disagrees or bar > 0.25 * REQUIRED_RESOLUTION * size:  # the bound of all is three times the bar of one
        shorter = order6(line, STEP / 8, noise)
        if disagrees or (shorter.bar is not None and float(shorter.bar) < bar):
            return shorter
    return estimate


def _line(subject: Subject, direction: Mapping[str, Tensor], room: Mapping[str, Tensor]) -> Line:
    """t -> loss with every parameter moved by t times its direction, branches held.

    room  where the moved parameters go: of a large model, fresh memory for each of 57 moves takes longer than moving
    """
    graph = subject.exact

    def at(offset: float) -> float:
        moved = {
            leaf.name: torch.add(leaf.value, direction[path], alpha=offset, out=room[path])
            for path, leaf in graph.parameters.items()
        }
        return float(evaluate_loss(graph, moved, subject.values))

    def line(offsets: Tensor) -> Tensor:
        return torch.tensor([at(float(offset)) for offset in offsets.flatten()], dtype=torch.float64).view(
            offsets.shape
        )

    return line


def _inner(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))


def _mismatch(subject: Subject, claimed: list[float], estimates: list[Estimate], wrong: list[int]) -> Finding:
    worst = max(wrong, key=lambda i: abs(claimed[i] - float(estimates[i].value)))
    estimate = estimates[worst]
    return Finding(
        check=NAME,
        severity="error",
        where=type(subject.setup.model).__name__,
        message=f"along {len(wrong)} of {COUNT} random directions the loss does not change as the gradient says",
        evidence={"claimed": claimed[worst], "numerical": float(estimate.value), "bar": float(estimate.bar or 0)},
        rows=(
            ("chain rule (float64)", f"{claimed[worst]:.6e}", "⟨gradient, direction⟩"),
            ("numerical (order 6)", f"{float(estimate.value):.6e}", f"± {float(estimate.bar or 0):.0e}"),
        ),
        notes=(
            "Every formula passed alone, so the fault lies between them: in the graph or in the engine. Please report it.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _unresolved(subject: Subject, resolution: float) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=type(subject.setup.model).__name__,
        message=f"an error below {resolution:.1e} of the gradient would not have been seen; "
        f"{REQUIRED_RESOLUTION:.0e} is required",
        evidence={"resolution": resolution, "required": REQUIRED_RESOLUTION},
        notes=(
            "The loss is too rough or too noisy along these directions: look at its size and at random operations in it.",
        ),
        reproduce=subject.reproduce(NAME),
        unresolved=True,
    )
