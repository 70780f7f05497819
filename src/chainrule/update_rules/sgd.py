"""SGD: stochastic gradient descent with momentum (Polyak 1964), Nesterov's form (Sutskever et al. 2013, section 2).

    d_t = g_t + λ p_{t-1}                           λ weight_decay, coupled: it passes through the momentum
    b_t = μ b_{t-1} + (1 - τ) d_t,   b_1 = d_1      μ momentum, τ dampening (not in the first step)
    p_t = p_{t-1} - γ b_t                           γ lr; without momentum d_t
    p_t = p_{t-1} - γ (d_t + μ b_t)                 with Nesterov

The rate multiplies outside the momentum, as in torch; in Polyak's form it stands inside, which differs once it changes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, number, uphill


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ (μ b + g + λp)."""
    momentum = number(settings, "momentum")
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    if momentum == 0:
        return param - number(settings, "lr") * direction, {}
    last = state.get("momentum_buffer")
    buffer = direction if last is None else momentum * last + (1 - number(settings, "dampening")) * direction
    step = direction + momentum * buffer if settings.get("nesterov") else buffer
    return param - number(settings, "lr") * step, {"momentum_buffer": buffer}


SGD = UpdateRule("SGD", update)
