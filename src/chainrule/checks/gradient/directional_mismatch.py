"""directional-mismatch: the whole gradient does not predict how the loss changes.

What it checks
    The slope of the loss along 8 random directions over all parameters jointly, by differences of the loss alone, against
    ⟨gradient, direction⟩. It is the only stage that looks at the model end to end.
Why it matters
    Each formula may be right and the whole still wrong: a gradient lost between formulas, a tie not summed.
How it decides
    Central differences with an error bar, branches held at the base point: of order 4, and where their bar is too wide or
    the gradient disagrees, of order 6. FAIL if a slope is off by more than three bars at two step lengths. For Gaussian
    directions ⟨e, v⟩ is normal with the size of the whole error e, so the 8 slopes bound ‖e‖ by chi-square at 99.9 %
    confidence, wherever the error sits. Directions are scaled by each parameter's rms.
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
from functools import cached_property

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate_loss
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, StageResult, Verdict
from chainrule.numdiff.directions import COUNT, error_bound, gaussian_directions
from chainrule.numdiff.noise import measure_noise, rounding_noise, sigmas
from chainrule.numdiff.stencils import ORDER_4, Line, apply, order6
from chainrule.numdiff.steps import rms
from chainrule.tolerance import REQUIRED_RESOLUTION, numerical_limit

NAME = "directional-mismatch"
SHORT_STEP = 5e-5  # order 4: |D4 - D2| is 2e-8 of the gradient there in GPT-2, and rounding 3e-9
STEP = 0.002  # all parameters move at once, so a shorter step than for one entry, and order 6 is enough
WIDEST = 0.25 * REQUIRED_RESOLUTION  # of the gradient's size: the bound of all is three times the bar of one
SMALLEST_SCALE = 1e-3  # a parameter that is zero still moves


def check(subject: Subject) -> tuple[StageResult, list[Finding]]:
    """Stage 4: slopes along random directions end to end, with a bound on the error of the whole gradient."""
    start = time.perf_counter()
    directions = Directions(subject)
    claimed, numerical, bars = _slopes(directions)
    size, errors = directions.size, (claimed - numerical).abs()
    resolution = error_bound(errors, bars).bound / size if size else 0.0
    wrong = [k for k in range(COUNT) if float(errors[k]) > numerical_limit(float(bars[k]), size).value]
    findings = []
    if wrong:
        worst = max(wrong, key=lambda k: float(errors[k]))
        findings = [_mismatch(subject, len(wrong), float(claimed[worst]), float(numerical[worst]), float(bars[worst]))]
    if not findings and resolution > REQUIRED_RESOLUTION:
        findings = [_unresolved(subject, resolution)]
    verdict: Verdict = "fail" if wrong else "unresolved" if findings else "pass"
    summary = f"{COUNT} random slopes of the loss = gradient: whole error < {resolution:.0e} of it, 99.9 % confidence"
    if wrong:
        summary = f"{len(wrong)} of {COUNT} random slopes of the loss differ from the gradient's"
    return StageResult("4 directions", verdict, summary, resolution, time.perf_counter() - start), findings


class Directions:
    """The loss along random directions over all parameters jointly, branches held.

    Each direction is drawn when it is used: one takes as much memory as the model.

    size  of the gradient as such directions see it: √Σ (scale ‖g‖)²
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        parameters = subject.exact.parameters
        self._scales = {path: max(rms(leaf.value), SMALLEST_SCALE) for path, leaf in parameters.items()}
        # Of a large model, fresh memory for each of 33 moves would take longer than moving.
        self._drawn = {path: torch.empty_like(leaf.value) for path, leaf in parameters.items()}
        self._moved = {path: torch.empty_like(leaf.value) for path, leaf in parameters.items()}
        self.size = sum((self._scales[path] * float(g.norm())) ** 2 for path, g in subject.gradients.items()) ** 0.5

    def take(self, k: int) -> tuple[float, Line]:
        """(⟨gradient, v⟩, t -> loss with every parameter moved by t v) for direction k; good until another is taken."""
        gradients = self._subject.gradients
        direction = gaussian_directions(gradients, self._subject.generator(400 + k), self._scales, self._drawn)
        claimed = sum(float(torch.dot(gradients[path].flatten(), v.flatten())) for path, v in direction.items())
        return claimed, lambda offsets: self._losses(direction, offsets)

    @cached_property
    def base(self) -> Tensor:
        """The loss at t = 0, computed as everywhere else on the lines."""
        return evaluate_loss(self._subject.exact, None, self._subject.values)

    def _losses(self, direction: Mapping[str, Tensor], offsets: Tensor) -> Tensor:
        losses = [self._at(direction, offset) for offset in offsets.flatten().tolist()]
        return torch.tensor(losses, dtype=torch.float64).view(offsets.shape)

    def _at(self, direction: Mapping[str, Tensor], offset: float) -> float:
        graph = self._subject.exact
        moved = {
            leaf.name: torch.add(leaf.value, direction[path], alpha=offset, out=self._moved[path])
            for path, leaf in graph.parameters.items()
        }
        return float(evaluate_loss(graph, moved, self._subject.values))


def _slopes(directions: Directions) -> tuple[Tensor, Tensor, Tensor]:
    """Claimed slope, numerical slope and its bar along each direction: by order 4, and longer only where that is not enough.

    The fourth differences of each line's 5 losses hold the noise (or how the loss bends: then the bars are wider).
    """
    points = torch.tensor(ORDER_4.points, dtype=torch.float64) * SHORT_STEP
    claimed, losses_SK = (
        torch.empty(COUNT, dtype=torch.float64),
        torch.empty(2 * len(points), COUNT, dtype=torch.float64),
    )
    for k in range(COUNT):
        claimed[k], line = directions.take(k)
        losses_SK[:, k] = line(torch.cat([points, -points]))
    near, far, back, far_back = losses_SK
    in_order = torch.stack([far_back, back, directions.base.expand(COUNT), near, far], dim=1)
    noise = max(sigmas(in_order)[-1], rounding_noise(in_order))
    estimate = apply(ORDER_4, lambda _: losses_SK, torch.full((COUNT,), SHORT_STEP, dtype=torch.float64), noise)
    assert estimate.bar is not None
    values, bars, level = estimate.value, estimate.bar, None
    for k in range(COUNT):
        if not _settled(float(claimed[k]), float(values[k]), float(bars[k]), directions.size):
            _, line = directions.take(k)
            level = measure_noise(line, spacing=1e-7).level if level is None else level
            values[k], bars[k] = _longer(line, level, directions.size, float(claimed[k]))
    return claimed, values, bars


def _settled(claimed: float, value: float, bar: float, size: float) -> bool:
    """Whether a slope agrees with the gradient's by a bar that is narrow enough."""
    return bar <= WIDEST * size and abs(claimed - value) <= numerical_limit(bar, size).value


def _longer(line: Line, noise: float, size: float, claimed: float) -> tuple[float, float]:
    """Slope and bar by order 6 at h = 0.002 of each parameter's rms; a shorter step where the loss bends too much for that.

    |D6 - D4| is small by accident where the two err alike, as along a layer norm of four features. So an estimate that
    disagrees is not believed before a step an eighth as long has said the same.
    """
    value, bar = _order6(line, STEP, noise)
    if _settled(claimed, value, bar, size):
        return value, bar
    shorter, its_bar = _order6(line, STEP / 8, noise)
    disagrees = abs(claimed - value) > numerical_limit(bar, size).value
    return (shorter, its_bar) if disagrees or its_bar < bar else (value, bar)


def _order6(line: Line, h: float, noise: float) -> tuple[float, float]:
    estimate = order6(line, h, noise)
    assert estimate.bar is not None
    return float(estimate.value), float(estimate.bar)


def _mismatch(subject: Subject, wrong: int, claimed: float, numerical: float, bar: float) -> Finding:
    return Finding(
        check=NAME,
        severity="error",
        where=type(subject.setup.model).__name__,
        message=f"along {wrong} of {COUNT} random directions the loss does not change as the gradient says",
        evidence={"claimed": claimed, "numerical": numerical, "bar": bar},
        rows=(
            ("chain rule (float64)", f"{claimed:.6e}", "⟨gradient, direction⟩"),
            ("numerical (order 6)", f"{numerical:.6e}", f"± {bar:.0e}"),
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
