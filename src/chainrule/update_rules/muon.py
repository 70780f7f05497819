"""Muon: the momentum of a matrix, made orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon; Liu et al., 2502.16982).

    b_t = μ b_{t-1} + (1 - μ) g_t
    s_t = μ b_t + (1 - μ) g_t                       with Nesterov; else b_t
    o_t = NS_k(s_t)                                 Newton-Schulz, k times:  X ← aX + (bA + cA²)X,  A = XXᵀ,  X_0 = s/|s|
    p_t = p_{t-1} - γ λ p_{t-1} - γ κ o_t           κ = √max(1, rows/columns), or 0.2 √max(rows, columns) "match_rms_adamw"

The momentum is made orthogonal, not the gradient: the order matters. Every program in use runs NS in bfloat16 on purpose, and
it magnifies the rounding of small singular values, so two honest steps agree only to some per cent.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, number, uphill, zeros

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
BFLOAT16_NEWTON_SCHULZ = (
    0.2  # measured: up to 0.042 of the step for Gaussian matrices up to 96 × 96, a wrong order gives 1
)


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← (1 - γλ) p - γκ NS(μ b + (1 - μ) g)."""
    rate = number(settings, "lr")
    raw, buffer = averaged(grad, state, settings)
    step = scale(param, settings) * orthogonal(raw, settings)
    return param - rate * number(settings, "weight_decay") * param - rate * step, {"momentum_buffer": buffer}


def averaged(grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, Tensor]:
    """(s, b): what is made orthogonal, and the momentum."""
    momentum, direction = number(settings, "momentum"), uphill(grad, settings)
    buffer = momentum * zeros(state, "momentum_buffer", grad) + (1 - momentum) * direction
    return momentum * buffer + (1 - momentum) * direction if settings.get("nesterov", True) else buffer, buffer


def scale(param: Tensor, settings: Settings) -> float:
    """κ: what makes steps of matrices of different shape comparable."""
    rows, columns = param.shape[-2:]
    wanted = settings.get("adjust_lr_fn")
    if wanted == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns)) if wanted in (None, "original") else 1.0


def orthogonal(matrix: Tensor, settings: Settings) -> Tensor:
    """Newton-Schulz on the wide one of the matrix and its transpose: singular values to between 0.7 and 1.2."""
    a, b, c = _coefficients(settings)
    tall = matrix.shape[-2] > matrix.shape[-1]
    wide: Tensor = matrix.mT if tall else matrix
    wide = wide / wide.norm().clamp(min=number(settings, "eps", 1e-7))
    for _ in range(_iterations(settings)):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.mT if tall else wide


def of_singular_values(sigma: Tensor, settings: Settings) -> Tensor:
    """What Newton-Schulz makes of singular values; the directions that belong to them stay: σ ← aσ + bσ³ + cσ⁵."""
    a, b, c = _coefficients(settings)
    for _ in range(_iterations(settings)):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


def _coefficients(settings: Settings) -> tuple[float, float, float]:
    a, b, c = settings.get("ns_coefficients", COEFFICIENTS)
    return a, b, c


def _iterations(settings: Settings) -> int:
    return int(settings.get("ns_steps", 5))


MUON = UpdateRule(
    "Muon", update, ("lr", "momentum"), resolution=BFLOAT16_NEWTON_SCHULZ, dimensions=2, elementwise=False
)
