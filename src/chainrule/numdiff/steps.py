"""How long a step is: every rule returns (choice, reason), and the reason is shown to the user.

With noise σ in each evaluation, an order-p difference has truncation error ~ h^p and round-off ~ σ/h: too long a step
is wrong by the one, too short a step by the other. Order 8 is so flat near its best step that a rule of thumb does.

Sources: P. E. Gill, W. Murray, M. H. Wright, Practical Optimization (1981), section 8.6; H.-J. M. Shi, Y. Xie,
M. Q. Xuan, J. Nocedal, Adaptive finite-difference interval estimation, SIAM J. Sci. Comput. 44 (2022) A2302.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from chainrule.numdiff.stencils import NOISE_MARGIN, Estimate, Line, Stencil

FRACTION = 0.1
LONGEST = 0.02
TRUNCATION_ORDER = 6  # |D8 - D6| is the error of D6
WIDEST_CHANGE = 32.0
WORTHWHILE = 1.5


class Choice(NamedTuple):
    """A step and why it was chosen."""

    h: float
    reason: str


def relative_step(tensor: Tensor) -> Choice:
    """0.1 rms of the tensor that is perturbed, at most 0.02: for the order-8 difference.

    A fixed 0.02 would be as long as the weights themselves of an embedding of standard deviation 0.02 that feeds a
    layer norm; there the loss is no polynomial any more over ±4h.
    """
    size = rms(tensor)
    if size == 0.0 or not math.isfinite(size):
        return Choice(LONGEST, f"h = {LONGEST}: the tensor is zero, so its size says nothing")
    if FRACTION * size >= LONGEST:
        return Choice(LONGEST, f"h = {LONGEST}, the longest: the tensor's rms is {size:.2g}")
    return Choice(FRACTION * size, f"h = {FRACTION * size:.2g}: a tenth of the tensor's rms, {size:.2g}")


def forward_step(noise: float, second: float) -> Choice:
    """2 sqrt(σ / |L''|), where h |L''|/2 and 2σ/h are equal."""
    if second == 0.0:
        return Choice(LONGEST, f"h = {LONGEST}: no curvature was seen")
    h = 2 * math.sqrt(noise / abs(second))
    return Choice(h, f"h = {h:.2g}: truncation and round-off are equal there (noise {noise:.1g}, L'' {second:.2g})")


def central_step(noise: float, third: float) -> Choice:
    """(3σ / |L'''|)^(1/3), where the sum of h² |L'''|/6 and σ/h is least."""
    if third == 0.0:
        return Choice(LONGEST, f"h = {LONGEST}: no third derivative was seen")
    h = (3 * noise / abs(third)) ** (1 / 3)
    return Choice(h, f"h = {h:.2g}: truncation and round-off add to the least (noise {noise:.1g}, L''' {third:.2g})")


def bend(line: Line, h: Tensor, noise: float) -> tuple[float, float]:
    """Typical second and third derivative over K lines, at least what noise feigns: 5 evaluations of each line."""
    offsets = torch.arange(-2, 3, dtype=h.dtype)[:, None] * h
    a, b, c, d, e = line(offsets)
    second = (b - 2 * c + d) / h**2
    third = (e - 2 * d + 2 * b - a) / (2 * h**3)
    return max(rms(second), noise / float(h.max()) ** 2), max(rms(third), noise / float(h.max()) ** 3)


def second_step(estimate: Estimate, stencil: Stencil) -> Tensor:
    """The step at which the bar, truncation T (h/h₀)⁶ plus round-off R h₀/h, is least: h₀ (R / 6T)^(1/7), shape K.

    T and R are the two parts of the bar at h₀. The change is limited to a factor of 32. Where it would be less than 1.5
    the step stays as it is: nothing is to be gained.
    """
    if estimate.bar is None or estimate.noise is None:
        return estimate.h
    roundoff = NOISE_MARGIN * estimate.noise * stencil.noise_gain / estimate.h
    truncation = (estimate.bar - roundoff).clamp_min(torch.finfo(torch.float64).tiny)
    change = (roundoff / (TRUNCATION_ORDER * truncation)) ** (1 / (TRUNCATION_ORDER + 1))
    change = change.clamp(1 / WIDEST_CHANGE, WIDEST_CHANGE)
    worthwhile = (change > WORTHWHILE) | (change < 1 / WORTHWHILE)
    return torch.where(worthwhile, estimate.h * change, estimate.h)


def rms(tensor: Tensor) -> float:
    """Root mean square of the entries, 0 for an empty tensor."""
    norm = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)  # no copy in float64, nor of the squares
    return float(norm) / math.sqrt(tensor.numel()) if tensor.numel() else 0.0
