"""Adam: adaptive moments with bias correction (Kingma & Ba, ICLR 2015, algorithm 1; amsgrad: Reddi et al. 2018, algorithm 2).

    d_t = g_t + λ p_{t-1}                           L2: the decay passes through the moments
    m_t = β1 m_{t-1} + (1 - β1) d_t
    v_t = β2 v_{t-1} + (1 - β2) d_t²
    m̂_t = m_t / (1 - β1ᵗ),   v̂_t = v_t / (1 - β2ᵗ)
    p_t = p_{t-1} - γ m̂_t / (√v̂_t + ε)             ε is not scaled by the bias correction

With amsgrad v̂_t is the largest v so far over 1 - β2ᵗ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, count, number, pair, uphill, zeros

NEEDS = ("lr", "betas", "eps")


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ m̂/(√v̂ + ε)."""
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    step, new = moments(param, direction, state, settings)
    return param - number(settings, "lr") * step, new


def moments(param: Tensor, direction: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """m̂ / (√v̂ + ε) and the new state; AdamW takes it without decay."""
    beta1, beta2 = pair(settings)
    first = beta1 * zeros(state, "exp_avg", param) + (1 - beta1) * direction
    second = beta2 * zeros(state, "exp_avg_sq", param) + (1 - beta2) * direction**2
    new: dict[str, Any] = {"step": count(state), "exp_avg": first, "exp_avg_sq": second}
    if settings.get("amsgrad"):
        new["max_exp_avg_sq"] = torch.maximum(zeros(state, "max_exp_avg_sq", param), second)
    return corrected_first(new, settings) / (corrected_second(new, settings).sqrt() + number(settings, "eps")), new


def corrected_first(state: State, settings: Settings) -> Tensor:
    """m̂ of the state after a step."""
    corrected: Tensor = state["exp_avg"] / (1 - pair(settings)[0] ** number(state, "step"))
    return corrected


def corrected_second(state: State, settings: Settings) -> Tensor:
    """v̂ of the state after a step."""
    largest: Tensor = state.get("max_exp_avg_sq", state["exp_avg_sq"])
    corrected: Tensor = largest / (1 - pair(settings)[1] ** number(state, "step"))
    return corrected


ADAM = UpdateRule("Adam", update, NEEDS)
