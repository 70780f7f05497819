"""L1 and L2 penalties as part of the loss, so that every gradient engine differentiates them and the preflight proves them.

L(θ) = data loss + λ1 Σ |w| + λ2 / 2 Σ w²              over the weight matrices; biases, norms, embeddings are free
dL/dw = ... + λ1 sign w + λ2 w
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from chainrule.train.config import RegularisationConfig
from chainrule.train.engine import Loss
from chainrule.train.optimizers import decaying


def penalised(loss: Loss, config: RegularisationConfig) -> Loss:
    """The loss with its penalties; the loss itself if there are none."""
    if config.l1 == 0 and config.l2 == 0:
        return loss

    def penalised_loss(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) + penalty(model, config)

    return penalised_loss


def penalty(model: nn.Module, config: RegularisationConfig) -> Tensor:
    """λ1 Σ |w| + λ2 / 2 Σ w², a scalar."""
    parts = [part for weight in decaying(model) for part in _parts(weight, config)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _parts(weight: Tensor, config: RegularisationConfig) -> list[Tensor]:
    parts = []
    if config.l1:
        parts.append(config.l1 * weight.abs().sum())
    if config.l2:
        parts.append(config.l2 / 2 * weight.square().sum())
    return parts
