"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, algorithm 2).

    p' = p_{t-1} - γ λ p_{t-1}                      the decay never enters the moments
    p_t = p' - γ m̂_t / (√v̂_t + ε)                  m̂, v̂ of the gradient alone, as in Adam

As in torch λ is multiplied by the rate γ, so the decay follows the schedule; the paper's λ' is γ λ (pytorch#38853).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from chainrule.update_rules.adam import NEEDS, moments
from chainrule.update_rules.rule import Settings, State, UpdateRule, number, uphill


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← (1 - γλ) p - γ m̂/(√v̂ + ε)."""
    rate = number(settings, "lr")
    step, new = moments(param, uphill(grad, settings), state, settings)
    return param - rate * number(settings, "weight_decay") * param - rate * step, new


ADAMW = UpdateRule("AdamW", update, (*NEEDS, "weight_decay"))
