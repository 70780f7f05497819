"""loss-wrong-gradient: autograd's gradient of the loss of your own is not the loss's slope.

What it checks
    dL/dprediction by autograd, entry by entry (64 of them at most), against differences of the loss itself.
Why it matters
    A custom autograd.Function may have a wrong backward, and a detached factor drops a term of the product rule. The loss
    is right, its gradient is not, and training goes somewhere else without a word.
How it decides
    In float64, order-8 differences at two step lengths, of which the one with the smaller error bar counts. An error where they
    differ by more than three bars or 1e-6 of the largest entry. Entries whose bar is wide (a kink of the loss lies
    within the step) say nothing; if more than a quarter do, the check is unresolved.
Broken
    def loss(prediction, target):
        error = prediction - target
        return (error.detach().abs() * error.abs()).mean()
Repaired
    def loss(prediction, target):
        return (prediction - target).square().mean()
Limits
    A weight that is detached on purpose (as focal weights sometimes are) is found too: the gradient is then not that of the
    loss that is printed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.numdiff.noise import rounding_noise, sigmas
from chainrule.numdiff.stencils import Line, better, order8
from chainrule.numdiff.steps import rms
from chainrule.tolerance import REQUIRED_RESOLUTION

NAME = "loss-wrong-gradient"
ENTRIES = 64
STEPS = (1e-2, 1e-4)  # in units of the predictions' rms: the shorter one for entries near a kink
NOISE_SPACING = 1e-5  # of the predictions' rms: a loss that computes in float32 shows its steps there
UNSURE = 0.25  # share of entries that may be unresolved: a loss with a kink has some near it


@dataclass(frozen=True)
class Compared:
    """Gradient entries by autograd and by differences.

    places  (K) flat indices
    bar     (K) of the differences
    scale   largest entry of both
    """

    places: Tensor
    autograd: Tensor
    numerical: Tensor
    bar: Tensor
    scale: float

    @property
    def limit(self) -> Tensor:
        """(K) how far the two may lie apart."""
        return (3 * self.bar).clamp_min(REQUIRED_RESOLUTION * self.scale)

    @property
    def resolution(self) -> float:
        """The smallest error, as a share of the largest entry, that would have been seen in most entries."""
        return float(torch.quantile(self.limit, 1 - UNSURE) / (self.scale or 1.0))

    @property
    def unsure(self) -> Tensor:
        """(K) True where the bar is wider than the required resolution."""
        return self.bar > REQUIRED_RESOLUTION * self.scale


def check(subject: LossSubject) -> Outcome:
    """Compare autograd's gradient with differences."""
    value, gradient = subject.value_and_gradient(*subject.exact)
    if gradient is None or not bool(gradient.any()):
        return NotRun("there is no gradient")
    if not bool(value.isfinite()) or not bool(gradient.isfinite().all()):
        return NotRun("loss or gradient is not finite")
    if not torch.equal(subject.value(*subject.exact), subject.value(*subject.exact)):
        return NotRun("two runs on the same numbers differ")
    found = compared(subject)
    wrong = (found.autograd - found.numerical).abs() > found.limit
    if bool(wrong.any()):
        return [_mismatch(subject, found, wrong)]
    return [_unresolved(subject, found)] if float(found.unsure.double().mean()) > UNSURE else []


def compared(subject: LossSubject) -> Compared:
    """Both gradients at some entries of the predictions, chosen by the seed where there are many; there is a gradient."""
    _, gradient = subject.value_and_gradient(*subject.exact)
    assert gradient is not None
    generator = torch.Generator().manual_seed(subject.seed)
    places = torch.randperm(gradient.numel(), generator=generator)[:ENTRIES].sort().values
    size = rms(subject.prediction) or 1.0
    line = _line(subject, places)
    noise = _noise(line, len(places), size)
    first, second = (order8(line, torch.full((len(places),), step * size).double(), noise) for step in STEPS)
    estimate = better(first, second)
    assert estimate.bar is not None
    analytic = gradient.flatten().cpu()[places]  # the differences are taken on the CPU
    scale = float(torch.maximum(analytic.abs(), estimate.value.abs()).max())
    return Compared(places, analytic, estimate.value, estimate.bar, scale)


def _noise(line: Line, count: int, size: float) -> float:
    """Standard deviation of one evaluation's rounding: by fourth differences, which a smooth loss leaves nothing of."""
    offsets = (NOISE_SPACING * size * torch.arange(-4, 5, dtype=torch.float64))[:, None].expand(9, count)
    values = line(offsets)
    jitter = max(sigmas(values[:, place])[3] for place in range(min(count, 8)))
    return max(jitter, rounding_noise(values))


def _line(subject: LossSubject, places: Tensor) -> Line:
    """Offsets (S, K) -> losses (S, K): entry places[k] of the predictions moved by offset [s, k]."""
    prediction, target = subject.exact

    def loss_at(place: int, offset: float) -> float:
        moved = prediction.flatten().clone()
        moved[place] += offset
        return float(subject.value(moved.view_as(prediction), target))

    def line(offsets: Tensor) -> Tensor:
        rows = [[loss_at(place, t) for place, t in zip(places.tolist(), row, strict=True)] for row in offsets.tolist()]
        return torch.tensor(rows, dtype=torch.float64)

    return line


def _mismatch(subject: LossSubject, found: Compared, wrong: Tensor) -> Finding:
    worst = int(((found.autograd - found.numerical).abs() / found.limit).argmax())
    index = tuple(int(i) for i in torch.unravel_index(found.places[worst], subject.prediction.shape))
    ratio = float(found.autograd[worst] / found.numerical[worst]) if found.numerical[worst] else float("inf")
    return Finding(
        check=NAME,
        severity="error",
        where=subject.where,
        source=subject.source,
        message=f"autograd's gradient of this loss is not its slope in {int(wrong.sum())} of {len(wrong)} entries",
        evidence={"wrong": int(wrong.sum()), "entries": len(wrong), "ratio": ratio},
        rows=(
            ("autograd", f"{float(found.autograd[worst]):.6e}", f"dL/dprediction at {index}"),
            ("numerical (order 8)", f"{float(found.numerical[worst]):.6e}", f"± {float(found.bar[worst]):.0e}"),
        ),
        notes=(
            f"Ratio {ratio:.4g} there. Look at the backward of a custom autograd.Function, or for .detach() on a factor that "
            "depends on the predictions.",
        ),
        reproduce=subject.command,
    )


def _unresolved(subject: LossSubject, found: Compared) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=subject.where,
        source=subject.source,
        message=f"the slope of this loss cannot be measured in {int(found.unsure.sum())} of {len(found.unsure)} entries",
        evidence={"unsure": int(found.unsure.sum()), "entries": len(found.unsure), "bar": float(found.bar.max())},
        notes=("It jumps or computes in low precision there: differences at neighbouring points do not agree.",),
        reproduce=subject.command,
        unresolved=True,
    )
