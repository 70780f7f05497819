"""The noise of a computed function: how much its value jitters by rounding when its argument moves by next to nothing.

A smooth function's k-th difference on a grid of spacing s shrinks like s^k, but that of rounding noise of standard
deviation σ grows: E[(Δ^k f)²] = σ² (2k)!/(k!)². So σ_k² = (k!)²/(2k)! · mean (Δ^k f)² is an estimate of σ² for each k,
once the smooth part has died away, which shows in that successive σ_k agree and that Δ^k f changes its sign.

Source: J. J. Moré and S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011) 1292-1314: the
differences are section 3, the tests for accepting σ_k and for changing the spacing section 5. Written from the
paper's formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.errors import ChainruleError
from chainrule.numdiff.stencils import Line

POINTS = 9
AGREEMENT = 4.0  # three successive σ_k have to agree within this factor (paper: η)
SPACING_FACTOR = 100.0  # the paper's advice when the spacing was too small or too large
TRIES = 4


@dataclass(frozen=True)
class Noise:
    """Standard deviation of the rounding error of one evaluation.

    level        absolute, in the units of the function
    reason       how it was found, in words
    evaluations  spent
    """

    level: float
    reason: str
    evaluations: int


def measure_noise(line: Line, spacing: float = 1e-7) -> Noise:
    """The noise of `line` near 0, at least that of rounding the result once: 9 evaluations, seldom 18 to 36.

    `spacing` is of the offsets: about 1e-7 of the size of what the line moves. Raises ChainruleError if the function is
    not finite there.
    """
    tried = 0
    for _ in range(TRIES):
        offsets = spacing * torch.arange(-(POINTS // 2), POINTS // 2 + 1, dtype=torch.float64)
        values = line(offsets).to(torch.float64)
        tried += POINTS
        floor = rounding_noise(values)
        sigma, verdict = difference_table_noise(values)
        if sigma is not None:
            reason = f"ECnoise, {POINTS} points at spacing {spacing:.0e}"
            return Noise(max(sigma, floor), reason if sigma >= floor else f"half an ulp of the value ({reason})", tried)
        spacing = spacing / SPACING_FACTOR if verdict == "too large" else spacing * SPACING_FACTOR
    if verdict == "constant":
        return Noise(floor, "half an ulp of the value: it does not change at all along the line", tried)
    smallest = min(sigmas(values))
    return Noise(max(smallest, floor), "the smallest σ_k: successive ones did not agree, so it may be too large", tried)


def difference_table_noise(values: Tensor) -> tuple[float | None, str]:
    """(σ, "detected"), or (None, what is wrong with the spacing: "too small", "too large" or "constant")."""
    if not bool(torch.isfinite(values).all()):
        raise ChainruleError(
            f"the function is not finite near the base point: {values.tolist()}; its noise has no meaning"
        )
    high, low = float(values.max()), float(values.min())
    if high == low:
        return None, "constant"
    if (high - low) > 0.1 * max(abs(high), abs(low)):
        return None, "too large"
    # Rounded to the same number at half of the points or more: the grid of the numbers is seen, not the noise.
    if int((values.diff() == 0).sum()) >= values.numel() // 2:
        return None, "too small"
    found = sigmas(values)
    for k in range(len(found) - 2):
        three = found[k : k + 3]
        if max(three) <= AGREEMENT * min(three) and _changes_sign(values.diff(n=k + 1)):
            return found[k], "detected"
    return None, "too large"


def sigmas(values: Tensor) -> list[float]:
    """σ_k for k = 1 ... n - 1 from n equispaced values, or from those of K lines (K, n): sqrt((k!)²/(2k)! · mean (Δ^k f)²)."""
    table = []
    for k in range(1, values.shape[-1]):
        gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
        table.append(math.sqrt(gamma * float(values.diff(n=k).square().mean())))
    return table


def rounding_noise(values: Tensor) -> float:
    """Standard deviation of rounding the result once: an ulp of the largest value, divided by sqrt 12."""
    largest = float(values.abs().max())
    return math.ulp(largest) / math.sqrt(12)


def _changes_sign(differences: Tensor) -> bool:
    return bool((differences.min() < 0) & (differences.max() > 0))
