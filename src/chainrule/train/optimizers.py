"""The torch optimizer of a run: weight matrices and embeddings decay, biases and norms do not."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from chainrule.train.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """AdamW or SGD over two groups of parameters; a tied parameter counts once.

    `fused` takes one pass over a parameter instead of ten; it exists for the CPU, too. The learning rate is set before
    each update from the schedule.
    """
    groups = decay_groups(model, config.weight_decay)
    rate = config.learning_rate
    if config.name == "adamw":
        return AdamW(groups, lr=rate, betas=(config.beta1, config.beta2), fused=_fused(model))
    momentum = config.beta1 if config.name == "momentum" else 0.0
    return SGD(groups, lr=rate, momentum=momentum, fused=_fused(model))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters of two or more dimensions decay; all others do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _fused(model: nn.Module) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())


def count(model: nn.Module) -> int:
    """Entries of all trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """The gradients that exist."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
