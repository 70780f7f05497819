"""Every "is this close enough" of the project, computed from dtype and size; each answer is a number and its reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch

REQUIRED_RESOLUTION = 1e-6  # of a tensor's gradient, in float64: what a numerical check must be able to see to say PASS
NORM_UNITS, ENTRY_UNITS, BIAS_UNITS = 1.0, 10.0, 5.0  # of rounding: see `residual_limits`; measured on the zoo
AGREEMENT = 1e-10  # of a tensor's gradient, in float64: two exact engines that differ by more do not agree


@dataclass(frozen=True)
class Limit:
    """A limit and the reason for it, which the report prints."""

    value: float
    reason: str


def unit(dtype: torch.dtype) -> float:
    """Unit roundoff u = eps/2: the largest relative error of rounding to nearest (Higham 2002, section 2.1)."""
    return float(torch.finfo(dtype).eps) / 2


def forward_limit(dtype: torch.dtype, nodes: int, loss: float, noise: float) -> Limit:
    """How far two evaluations of one loss in one dtype may lie apart.

    Rounding errors of n operations that do not conspire add up like √n·u (Higham & Mary 2019, SISC 41 A2815).
    """
    rounding = 8 * unit(dtype) * max(nodes, 1) ** 0.5 * abs(loss)
    reason = f"8 · u({_name(dtype)}) · √{nodes} · |loss|"
    if 3 * noise > rounding:
        return Limit(3 * noise, "3 times the difference between two runs of the model itself")
    return Limit(rounding, reason)


def agreement_limit(gradient_norm: float, bound_norm: float) -> Limit:
    """How far two float64 gradients of one tensor may lie apart: a share of the gradient, or rounding where it cancels to 0.

    bound_norm  norm of the last rule on absolute values: what the sums that make up the gradient had to cancel
    """
    zero = 1000 * unit(torch.float64) * bound_norm
    if zero > AGREEMENT * gradient_norm:
        return Limit(zero, "1000 u of the terms that cancel in it: the gradient is zero within rounding")
    return Limit(AGREEMENT * gradient_norm, f"{AGREEMENT:.0e} of the gradient's norm")


def numerical_limit(bar: float, scale: float) -> Limit:
    """How far an exact derivative may lie from a numerical one: three times the bar, or what two exact engines may differ."""
    if 3 * bar > AGREEMENT * scale:
        return Limit(3 * bar, "3 times the error bar of the difference quotient")
    return Limit(AGREEMENT * scale, f"{AGREEMENT:.0e} of the scale")


def residual_limits(norm: float, entry: float, bias: float) -> tuple[Limit, Limit, Limit]:
    """How large a recorded adjoint's residual may be, in units of rounding, as a norm, at its worst entry, as a bias.

    norm, entry, bias  the residual of torch's own derivative of the same formula, same numbers, same dtype: what an honest
                       backward of this dtype shows here. A backward may be some times worse than that (it may round in
                       other places), plus a few units for formulas that torch happens to round not at all.
    """
    return (
        Limit(NORM_UNITS + 3 * norm, f"{NORM_UNITS:g} u + 3 times that of torch's own derivative"),
        Limit(ENTRY_UNITS + 4 * entry, f"{ENTRY_UNITS:g} u + 4 times that of torch's own derivative"),
        Limit(BIAS_UNITS + 4 * bias, f"{BIAS_UNITS:g} u + 4 times that of torch's own derivative"),
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
