"""Adagrad: the gradient over the root of all its squares so far (Duchi, Hazan & Singer, JMLR 12, 2011, figure 1).

d_t = g_t + λ p_{t-1}
γ_t = γ / (1 + (t - 1) η)                       η lr_decay
s_t = s_{t-1} + d_t²                            s_0 initial_accumulator_value
p_t = p_{t-1} - γ_t d_t / (√s_t + ε)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, count, number, uphill


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← p - γ d/(√Σd² + ε)."""
    step = count(state)
    direction = uphill(grad, settings) + number(settings, "weight_decay") * param
    rate = number(settings, "lr") / (1 + (step - 1) * number(settings, "lr_decay"))
    before = state.get("sum", torch.full_like(param, number(settings, "initial_accumulator_value")))
    total = before + direction**2
    return param - rate * direction / (total.sqrt() + number(settings, "eps")), {"step": step, "sum": total}


ADAGRAD = UpdateRule("Adagrad", update, ("lr", "eps", "lr_decay"))
