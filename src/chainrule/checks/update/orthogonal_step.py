"""A real step of Muon against its formula, in the directions in which rounding leaves it determined.

Muon's Newton-Schulz runs in bfloat16. It keeps the singular vectors of the momentum and brings its singular values to about 1,
those of pure rounding too: a gradient of rank 1 makes a step of full rank, of which one direction means something. So with

    s = U Σ Vᵀ              the momentum, float64              r of its σ_i lie above DETERMINED · |s|
    O = ((1 - γλ) p - p') / γκ                                 what the real step used as the orthogonal matrix

the block U_rᵀ O V_r is diag(f(σ_1/|s|) ...), f Newton-Schulz of one number, and what is left of O has no singular value beyond
the largest that f can give. Measured on torch.optim.Muon, 72 matrices of 8 to 512 rows, full and low rank, falling spectra: the
block differs by at most 0.026 of its norm; a fifth is allowed, as for the trial of update-formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.update.expected import Move
from chainrule.tolerance import unit
from chainrule.update_rules.muon import MUON, averaged, of_singular_values, scale
from chainrule.update_rules.rule import Settings, number

DETERMINED = 0.01  # of |s|: five times the rounding unit of bfloat16, so that the directions themselves are sure


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """What a step of Muon should have been.

    excess    the larger of the two differences in units of what is allowed
    expected  values after the step, float64: the formula's where it is determined, the real ones elsewhere
    """

    excess: float
    expected: Tensor


def orthogonal_step(move: Move) -> Orthogonal:
    """The step of a whole matrix, looked at in the basis of its momentum's singular vectors."""
    before, after = move.record.before[move.path], move.record.after[move.path]
    settings = move.settings
    raw = _momentum(move)
    tall = raw.shape[0] > raw.shape[1]
    length = number(settings, "lr") * scale(before, settings)
    decayed = (1 - number(settings, "lr") * number(settings, "weight_decay")) * before.double()
    used = (decayed - after.double()) / length
    rounding = unit(before.dtype) * float(before.double().norm() + after.double().norm()) / length
    excess, wrong = _compared(raw.mT if tall else raw, used.mT if tall else used, rounding, settings)
    return Orthogonal(excess, after.double() + length * (wrong.mT if tall else wrong))


def _momentum(move: Move) -> Tensor:
    gradient, state = move.record.gradients[move.path], move.record.state_before.get(move.path) or {}
    assert gradient is not None
    exact = {name: value.double() for name, value in state.items() if isinstance(value, Tensor)}
    return averaged(gradient.double(), exact, move.settings)[0]


def _compared(raw: Tensor, used: Tensor, rounding: float, settings: Settings) -> tuple[float, Tensor]:
    """(excess, what is wrong in the orthogonal matrix that was used); rows are the shorter side."""
    u, sigma, vh = torch.linalg.svd(raw, full_matrices=False)
    sigma = sigma / raw.norm().clamp(min=number(settings, "eps", 1e-7))
    sure = sigma > DETERMINED
    u, vh, formula = u[:, sure], vh[sure], of_singular_values(sigma[sure], settings)
    block = u.mT @ used @ vh.mT
    rest = used - u @ block @ vh
    reach = float(of_singular_values(torch.linspace(0, 1, 1001, dtype=torch.float64), settings).abs().max())
    difference = block - torch.diag(formula)
    inside = float(difference.norm()) / max(MUON.resolution * float(formula.norm()) + rounding, 1e-300)
    outside = float(rest.norm()) / (reach * (1 + MUON.resolution) * raw.shape[0] ** 0.5 + rounding)
    return max(inside, outside), u @ difference @ vh + max(0.0, 1 - 1 / max(outside, 1e-300)) * rest
