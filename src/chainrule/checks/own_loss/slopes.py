"""Autograd's gradient of a loss to its predictions beside differences of the loss itself, entry by entry, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.numdiff.noise import rounding_noise, sigmas
from chainrule.numdiff.stencils import Line, better, order8
from chainrule.numdiff.steps import rms
from chainrule.tolerance import REQUIRED_RESOLUTION

STEPS = (1e-2, 1e-4)  # in units of the predictions' rms: the shorter one for entries near a kink
NOISE_SPACING = 1e-5  # of the predictions' rms: a loss that computes in float32 shows its steps there
UNSURE = 0.25  # share of entries that may be unresolved: a loss with a kink has some near it


@dataclass(frozen=True)
class Slopes:
    """Entries of the gradient by autograd and by differences.

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
    def wrong(self) -> Tensor:
        """(K) True where they lie further apart."""
        return (self.autograd - self.numerical).abs() > self.limit

    @property
    def unsure(self) -> Tensor:
        """(K) True where the limit is wider than the required resolution."""
        return self.limit > REQUIRED_RESOLUTION * self.scale

    @property
    def resolution(self) -> float:
        """The smallest error, as a share of the largest entry, that would have been seen in most entries."""
        return float(torch.quantile(self.limit, 1 - UNSURE) / (self.scale or 1.0))


def slopes(
    loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor, gradient: Tensor, places: Tensor
) -> Slopes:
    """Both at some entries of the predictions.

    loss      loss(prediction, target), without a gradient
    gradient  by autograd, of the predictions' shape
    places    (K) flat indices, on the CPU
    """
    size = rms(prediction) or 1.0
    line = _line(loss, prediction, target, places)
    noise = _noise(line, len(places), size)
    first, second = (order8(line, torch.full((len(places),), step * size).double(), noise) for step in STEPS)
    estimate = better(first, second)
    assert estimate.bar is not None
    analytic = gradient.flatten().cpu()[places]  # the differences are taken on the CPU
    scale = float(torch.maximum(analytic.abs(), estimate.value.abs()).max())
    return Slopes(places, analytic, estimate.value, estimate.bar, scale)


def _noise(line: Line, count: int, size: float) -> float:
    """Standard deviation of one evaluation's rounding: by fourth differences, which a smooth loss leaves nothing of."""
    offsets = (NOISE_SPACING * size * torch.arange(-4, 5, dtype=torch.float64))[:, None].expand(9, count)
    values = line(offsets)
    jitter = max(sigmas(values[:, place])[3] for place in range(min(count, 8)))
    return max(jitter, rounding_noise(values))


def _line(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, target: Tensor, places: Tensor) -> Line:
    """Offsets (S, K) -> losses (S, K): entry places[k] of the predictions moved by offset [s, k]."""

    def loss_at(place: int, offset: float) -> float:
        moved = prediction.flatten().clone()
        moved[place] += offset
        return float(loss(moved.view_as(prediction), target))

    def line(offsets: Tensor) -> Tensor:
        rows = [[loss_at(place, t) for place, t in zip(places.tolist(), row, strict=True)] for row in offsets.tolist()]
        return torch.tensor(rows, dtype=torch.float64)

    return line
