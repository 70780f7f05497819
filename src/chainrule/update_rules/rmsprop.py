"""RMSprop: the gradient over a running root mean square (Tieleman & Hinton, Lecture 6.5, 2012; centered: Graves 2013, (38)-(45)).

d_t = g_t + λ p_{t-1}
v_t = α v_{t-1} + (1 - α) d_t²
a_t = α a_{t-1} + (1 - α) d_t                   only if centered
s_t = √v_t + ε   or   √(v_t - a_t²) + ε         ε outside the root, as torch; inside in TensorFlow
b_t = μ b_{t-1} + d_t / s_t
p_t = p_{t-1} - γ b_t                           without momentum: p_{t-1} - γ d_t / s_t
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, count, number, uphill, zeros


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ d/(√v + ε)."""
    alpha, momentum = number(settings, "alpha"), number(settings, "momentum")
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    square = alpha * zeros(state, "square_avg", param) + (1 - alpha) * direction**2
    new: dict[str, Any] = {"step": count(state), "square_avg": square}
    if settings.get("centered"):
        new["grad_avg"] = alpha * zeros(state, "grad_avg", param) + (1 - alpha) * direction
        square = square - new["grad_avg"] ** 2
    step = direction / (square.sqrt() + number(settings, "eps"))
    if momentum > 0:
        step = new["momentum_buffer"] = momentum * zeros(state, "momentum_buffer", param) + step
    return param - number(settings, "lr") * step, new


RMSPROP = UpdateRule("RMSprop", update, ("lr", "alpha", "eps"))
