"""Adafactor: a second moment kept as a row times a column (Shazeer & Stern, ICML 2018, arXiv 1804.04235, algorithms 4 and 5).

    ρ_t = min(γ, 1/√t),   α_t = max(ε2, rms(p_{t-1})) ρ_t
    p'  = p_{t-1} - γ λ p_{t-1}
    β̂_t = 1 - t^c                                   c beta2_decay, -0.8
    R_t = β̂ R_{t-1} + (1 - β̂) mean_columns(g²)      one number per row
    C_t = β̂ C_{t-1} + (1 - β̂) mean_rows(g²)         one per column
    v_t = R_t C_t / max(mean(R_t), ε1)              a vector keeps its whole v_t = β̂ v_{t-1} + (1 - β̂) g²
    u_t = g / √max(v_t, ε1²)
    p_t = p' - α_t u_t / max(1, rms(u_t)/d)

This is torch.optim.Adafactor; rms(p) is that before the decay, and ε1 is the dtype's eps where it is None.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from chainrule.update_rules.rule import Settings, State, UpdateRule, count, number, uphill, zeros


def update(param: Tensor, grad: Tensor, state: State, settings: Settings) -> tuple[Tensor, dict[str, Any]]:
    """p ← (1 - γλ) p - α u / max(1, rms(u)/d)."""
    eps1, eps2 = settings["eps"]
    eps1 = torch.finfo(param.dtype).eps if eps1 is None else eps1
    direction, t, rate = uphill(grad, settings), count(state), number(settings, "lr")
    square, new = second_moment(direction**2, state, t ** number(settings, "beta2_decay"), eps1)
    unit = direction / square.clamp(min=eps1**2).sqrt()
    length = max(eps2, rms(param)) * min(rate, t**-0.5)
    clipped = unit / max(1.0, rms(unit) / number(settings, "d"))
    return param - rate * number(settings, "weight_decay") * param - length * clipped, {"step": t, **new}


def second_moment(square: Tensor, state: State, share: float, eps: float) -> tuple[Tensor, dict[str, Any]]:
    """The estimate of g² and what to remember of it; `share` is how much of it is new."""
    if square.ndim < 2:
        whole = (1 - share) * zeros(state, "variance", square) + share * square
        return whole, {"variance": whole}
    means = {"row_var": square.mean(dim=-1, keepdim=True), "col_var": square.mean(dim=-2, keepdim=True)}
    new = {name: (1 - share) * zeros(state, name, mean) + share * mean for name, mean in means.items()}
    row, column = new["row_var"], new["col_var"]
    return row @ column / row.mean(dim=-2, keepdim=True).clamp(min=eps), new


def rms(tensor: Tensor) -> float:
    """Root mean square."""
    return float(tensor.pow(2).mean().sqrt())


ADAFACTOR = UpdateRule("Adafactor", update, ("lr", "beta2_decay", "eps", "d"), elementwise=False)
