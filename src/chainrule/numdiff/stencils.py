"""Finite differences along lines: forward, central and order 8, the last with an error bar from its own evaluations.

A line is a function of one number, the offset t from the base point: `line(t)` is the loss at W + t E. All stencils are
vectorised: `line` takes offsets of shape (S, *K), S points on each of K lines, and returns the losses in that shape.

    forward   (L(h) - L(0)) / h                                            error  h L''/2
    central   (L(h) - L(-h)) / 2h                                          error  h² L'''/6
    order 8   Σ c_k (L(kh) - L(-kh)) / h,  c = 4/5, -1/5, 4/105, -1/280     error  h⁸ L⁽⁹⁾/630

Source: B. Fornberg, Generation of finite difference formulas on arbitrarily spaced grids, Math. Comp. 51 (1988)
699-706, table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from chainrule.errors import ChainruleError

# offsets (S, *K) -> losses (S, *K)
Line: TypeAlias = Callable[[Tensor], Tensor]

# How many standard deviations of the losses' noise a bar allows for.
NOISE_MARGIN = 4.0
# How many times the truncation that its forerunners foretell a bar allows for. Of 10,042 derivatives in
# benchmarks/order8_coverage.py 18 were outside |D8 - D6| alone, 4 with a caution of 1, and 1 with 3.
CAUTION = 3.0


@dataclass(frozen=True)
class Stencil:
    """Σ weights · L(points · h) / h, antisymmetric: each point stands also for its mirror image with weight -w.

    weights  of the formula that gives the value
    lower    of the formulas of lower order on the same points, highest order first; the truncation bar comes from how
             they differ; empty if the points do not give any, and then there is no bar
    """

    points: tuple[float, ...]
    weights: tuple[float, ...]
    lower: tuple[tuple[float, ...], ...]

    @property
    def noise_gain(self) -> float:
        """Σ |w| over all points: how much the noise of one evaluation is magnified at worst, in units of 1/h."""
        return 2 * sum(abs(weight) for weight in self.weights)


PLAIN_CENTRAL = Stencil((1.0,), (1 / 2,), ())
CENTRAL = Stencil((1.0, 2.0), (1 / 2, 0.0), ((0.0, 1 / 4),))
ORDER_4 = Stencil((1.0, 2.0), (2 / 3, -1 / 12), ((1 / 2, 0.0),))
ORDER_6 = Stencil((1.0, 2.0, 3.0), (3 / 4, -3 / 20, 1 / 60), ((2 / 3, -1 / 12, 0.0),))
ORDER_8 = Stencil(
    (1.0, 2.0, 3.0, 4.0),
    (4 / 5, -1 / 5, 4 / 105, -1 / 280),
    ((3 / 4, -3 / 20, 1 / 60, 0.0), (2 / 3, -1 / 12, 0.0, 0.0), (1 / 2, 0.0, 0.0, 0.0)),
)


@dataclass(frozen=True)
class Estimate:
    """A numerical derivative, or K of them, and how far it can be trusted.

    value        dL/dt at t = 0, shape K
    bar          |value - derivative| is at most this, shape K; None where the method cannot say (forward difference)
    h            step, shape K or one for all
    evaluations  of the loss, over all K lines
    noise        standard deviation of one evaluation's rounding error that the bar allows for; None if not known
    """

    value: Tensor
    bar: Tensor | None
    h: Tensor
    evaluations: int
    noise: float | None = None


def forward(line: Line, h: float | Tensor, current: Tensor | None = None) -> Estimate:
    """(L(h) - L(0)) / h, the textbook's procedure; `current` is L(0) where it is known already."""
    h = as_step(h)
    plus = line(h[None])[0]
    base = line(torch.zeros_like(h)[None])[0] if current is None else current
    return Estimate((plus - base) / h, None, h, plus.numel() + (plus.numel() if current is None else 0))


def central(line: Line, h: float | Tensor, noise: float) -> Estimate:
    """(L(h) - L(-h)) / 2h with the bar |D(2h) - D(h)| + noise: 4 evaluations, of which the value needs 2."""
    return apply(CENTRAL, line, as_step(h), noise)


def order6(line: Line, h: float | Tensor, noise: float) -> Estimate:
    """The order-6 central difference with the bar |D6 - D4| + 4 · noise · Σ|w| / h: 6 evaluations."""
    return apply(ORDER_6, line, as_step(h), noise)


def order8(line: Line, h: float | Tensor, noise: float) -> Estimate:
    """The order-8 central difference with the bar |D8 - D6| (see `truncation`) + 4 · noise · Σ|w| / h: 8 evaluations."""
    return apply(ORDER_8, line, as_step(h), noise)


def apply(stencil: Stencil, line: Line, h: Tensor, noise: float) -> Estimate:
    """The stencil's value and bar on lines with steps h of shape K."""
    points = torch.tensor(stencil.points, dtype=h.dtype, device=h.device)
    offsets = torch.tensordot(torch.cat([points, -points])[:, None], h[None], dims=1)
    losses = line(offsets)
    if losses.shape[0] != offsets.shape[0]:
        raise ChainruleError(
            f"a line returned losses of shape {tuple(losses.shape)} for offsets of shape {tuple(offsets.shape)}; "
            f"expected one loss per offset"
        )
    plus, minus = losses.tensor_split(2)
    odd = plus - minus
    value = _weighted(stencil.weights, odd) / h
    if not stencil.lower:
        return Estimate(value, None, h, losses.numel(), noise)
    falling = [value, *(_weighted(weights, odd) / h for weights in stencil.lower)]
    bar = truncation(falling) + NOISE_MARGIN * noise * stencil.noise_gain / h
    return Estimate(value, bar, h, losses.numel(), noise)


def truncation(values: Sequence[Tensor]) -> Tensor:
    """A bar on the truncation error of the first of several values of falling order.

    It is e1 = |D8 - D6|, which is 0 by chance now and then: D7 or so changes its sign somewhere. So it is not let fall
    below thrice what the two differences before it foretell, e2 · e2 / e3 of a series that shrinks; e2 if it hardly does.
    """
    differences = [(a - b).abs() for a, b in pairwise(values)]
    if len(differences) < 3:
        return differences[0]
    e1, e2, e3 = differences[:3]
    return torch.maximum(e1, e2 * (CAUTION * e2 / e3.clamp_min(torch.finfo(e3.dtype).tiny)).clamp_max(1.0))


def better(first: Estimate, second: Estimate) -> Estimate:
    """Of two estimates of the same K lines, line by line the one with the smaller bar."""
    if first.bar is None or second.bar is None:
        raise ChainruleError("only estimates with a bar can be compared; a forward difference has none")
    pick = second.bar < first.bar
    return Estimate(
        torch.where(pick, second.value, first.value),
        torch.where(pick, second.bar, first.bar),
        torch.where(pick, second.h, first.h),
        first.evaluations + second.evaluations,
        first.noise,
    )


def as_step(h: float | Tensor) -> Tensor:
    """A step as a float64 tensor. Raises ChainruleError if it is zero, negative or not finite."""
    step = torch.as_tensor(h, dtype=torch.float64)
    if not bool((step > 0).all()) or not bool(torch.isfinite(step).all()):
        raise ChainruleError(f"the step h is {h}, expected a positive number such as 1e-5")
    return step


def _weighted(weights: tuple[float, ...], odd: Tensor) -> Tensor:
    """Σ_k weights[k] · odd[k]."""
    factors = torch.tensor(weights, dtype=odd.dtype, device=odd.device)
    return (factors.view(-1, *[1] * (odd.dim() - 1)) * odd).sum(dim=0)
