"""Lion: the sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

c_t = β1 m_{t-1} + (1 - β1) g_t
p_t = p_{t-1} - γ (sign(c_t) + λ p_{t-1})
m_t = β2 m_{t-1} + (1 - β2) g_t                 after the step, with the other β
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, number, pair, uphill, zeros


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ (sign(β1 m + (1 - β1) g) + λp)."""
    beta1, beta2 = pair(settings)
    direction, last = uphill(grad, settings), zeros(state, "exp_avg", param)
    step = (beta1 * last + (1 - beta1) * direction).sign() + number(settings, "weight_decay") * param
    return param - number(settings, "lr") * step, {"exp_avg": beta2 * last + (1 - beta2) * direction}


LION = UpdateRule("Lion", update, ("lr", "betas"))
