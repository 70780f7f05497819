"""Random directions: how wrong can a gradient be if its slope is right along k random directions?

If e = claimed - true gradient and v ~ N(0, I), then <e, v> ~ N(0, |e|²) exactly, whatever e looks like: one wrong entry
of a million is as visible as all of them. So Σ <e, v_k>² / |e|² is chi-square with k degrees of freedom, and

    |e| <= sqrt(S / χ²_{k,α})     with confidence 1 - α,     S = Σ <e, v_k>²,     P(χ²_k < χ²_{k,α}) = α.

One direction alone proves next to nothing (k = 1: factor 798 at 99.9 %); k = 8 gives 1.08, k = 16 gives 0.50.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.errors import ChainruleError

COUNT = 8
CONFIDENCE = 0.999


@dataclass(frozen=True)
class ErrorBound:
    """|e| <= bound with the given confidence.

    bound        on the Euclidean norm of claimed minus true gradient
    seen         root mean square of the errors along the directions: an estimate of |e| itself
    directions   how many
    """

    bound: float
    seen: float
    directions: int
    confidence: float

    def words(self, name: str, scale: float) -> str:
        """The bound as a sentence; `scale` is the norm of the gradient."""
        relative = self.bound / scale if scale else math.inf
        return (
            f"relative error of {name} at most {relative:.1e}, with {100 * self.confidence:.10g} % confidence "
            f"({self.directions} random directions)"
        )


def gaussian_directions(
    tensors: Mapping[str, Tensor],
    generator: torch.Generator,
    scales: Mapping[str, float] | None = None,
    room: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """One direction over all tensors jointly: independent normal entries, those of tensor `name` times scales[name].

    room  where to put them, by name: of a large model, fresh memory takes as long as drawing
    """
    direction = {}
    for name, tensor in tensors.items():
        draw = standard_normal(tensor.shape, generator, None if room is None else room[name])
        direction[name] = draw if scales is None else draw.mul_(scales[name])
    return direction


def standard_normal(shape: Sequence[int], generator: torch.Generator, room: Tensor | None = None) -> Tensor:
    """Independent N(0, 1) entries in float64, of float32 fineness: drawn so eight times as fast.

    A direction need not be finer: with steps of 6e-8 and a tail cut off at 5.8 it is normal far beyond what k = 8 slopes tell.
    """
    draw = torch.randn(shape, generator=generator, dtype=torch.float32)
    return draw.to(torch.float64) if room is None else room.copy_(draw)


def error_bound(errors: Tensor, bars: Tensor | None = None, confidence: float = CONFIDENCE) -> ErrorBound:
    """The bound from claimed minus numerical slope along k directions, shape (k,); `bars` of the slopes widen it."""
    errors = errors.to(torch.float64)
    widened = errors.abs() if bars is None else errors.abs() + bars
    k = errors.numel()
    bound = math.sqrt(float(widened.square().sum()) / chi_square_quantile(k, 1 - confidence))
    return ErrorBound(bound, float(errors.square().mean().sqrt()), k, confidence)


def miss_probability(ratio: float, k: int) -> float:
    """Probability that an error |e| stays below the level ratio·|e| along all of k directions: erf(ratio/√2)^k."""
    return math.erf(ratio / math.sqrt(2)) ** k


def chi_square_quantile(k: int, probability: float) -> float:
    """The q with P(χ²_k < q) = probability, by bisection on the regularised incomplete gamma function P(k/2, q/2)."""
    if k < 1 or not 0 < probability < 1:
        raise ChainruleError(
            f"chi-square quantile of {probability} with {k} degrees of freedom; expected k >= 1, 0 < p < 1"
        )
    low, high = 0.0, 1.0
    while _chi_square_below(k, high) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _chi_square_below(k, middle) < probability else (low, middle)
    return high


def _chi_square_below(k: int, q: float) -> float:
    half = torch.tensor([k / 2, q / 2], dtype=torch.float64)
    return float(torch.special.gammainc(half[0], half[1]))
