"""Lion, which torch.optim does not have: the sign of an interpolated momentum (Chen et al. 2023, 2302.06675, algorithm 2).

    c_t = β1 m_{t-1} + (1 - β1) g_t
    p_t = p_{t-1} - γ (sign c_t + λ p_{t-1})
    m_t = β2 m_{t-1} + (1 - β2) g_t

Every entry moves by γ, whatever its gradient: the rate must be smaller than AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT


class Lion(Optimizer):
    """The optimizer; one state tensor a parameter, `exp_avg`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; a closure is called for the loss, with gradients on."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        moments = [self._moment(p) for p in params]
        beta1, beta2 = group["betas"]
        directions = torch._foreach_lerp(moments, grads, 1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, directions, alpha=-group["lr"])
        torch._foreach_lerp_(moments, grads, 1 - beta2)

    def _moment(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if not state:
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        moment: Tensor = state["exp_avg"]
        return moment
