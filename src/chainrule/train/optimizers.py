"""The torch optimizers of a run: weight matrices decay, biases, norms and (unless asked) embeddings do not.

`fused` takes one pass over a parameter instead of ten; it exists for the CPU, too. The learning rate is set before each
update from the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adafactor, Adagrad, Adam, AdamW, Muon, Optimizer, RMSprop

from chainrule.train.config import OptimizerConfig
from chainrule.train.lion import Lion

Groups = list[dict[str, Any]]


def make_optimizers(model: nn.Module, config: OptimizerConfig) -> tuple[Optimizer, ...]:
    """One optimizer over the groups of `decay_groups`; for muon two: it turns matrices, AdamW has the rest."""
    if config.name == "muon":
        return _muon(model, config)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in model.parameters())
    return (_MAKERS[config.name](decay_groups(model, config), config, fused),)


def _sgd(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return SGD(groups, lr=config.learning_rate, fused=fused)


def _momentum(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return SGD(groups, lr=config.learning_rate, momentum=config.beta1, fused=fused)


def _nesterov(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return SGD(groups, lr=config.learning_rate, momentum=config.beta1, nesterov=True, fused=fused)


def _rmsprop(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:  # noqa: ARG001  torch has none
    return RMSprop(groups, lr=config.learning_rate, alpha=config.beta2, foreach=True)


def _adagrad(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return Adagrad(groups, lr=config.learning_rate, fused=fused)


def _adam(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return Adam(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def _adamw(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:
    return AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def _lion(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:  # noqa: ARG001
    return Lion(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2))


def _adafactor(groups: Groups, config: OptimizerConfig, fused: bool) -> Optimizer:  # noqa: ARG001  torch has none
    return Adafactor(groups, lr=config.learning_rate, foreach=True)


_MAKERS: Mapping[str, Callable[[Groups, OptimizerConfig, bool], Optimizer]] = MappingProxyType(
    {
        "sgd": _sgd,
        "momentum": _momentum,
        "nesterov": _nesterov,
        "rmsprop": _rmsprop,
        "adagrad": _adagrad,
        "adam": _adam,
        "adamw": _adamw,
        "lion": _lion,
        "adafactor": _adafactor,
    }
)


def _muon(model: nn.Module, config: OptimizerConfig) -> tuple[Optimizer, ...]:
    """Muon for the hidden matrices, its step as large as AdamW's (Liu et al. 2025, 2502.16982, section 2.2)."""
    embeddings = embedding_ids(model)
    matrices = [p for p in _trainable(model) if p.ndim == 2 and id(p) not in embeddings]
    taken = {id(parameter) for parameter in matrices}
    rest = [
        {**group, "params": [p for p in group["params"] if id(p) not in taken]} for group in decay_groups(model, config)
    ]
    rest = [group for group in rest if group["params"]]
    both: list[Optimizer] = []
    if matrices:
        both.append(
            Muon(
                matrices,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.beta1,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if rest:
        both.append(_adamw(rest, config, fused=True))
    return tuple(both)


def decay_groups(model: nn.Module, config: OptimizerConfig) -> Groups:
    """Two groups: what decays, `decaying`, and all else; a tied parameter counts once."""
    chosen = {id(parameter) for parameter in decaying(model, config.decay_embeddings)}
    trainable = _trainable(model)
    groups: Groups = [
        {"params": [p for p in trainable if id(p) in chosen], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if id(p) not in chosen], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def decaying(model: nn.Module, embeddings: bool = False) -> list[nn.Parameter]:
    """Trainable parameters of two or more dimensions; those of embeddings only if asked."""
    left_out = set() if embeddings else embedding_ids(model)
    return [p for p in _trainable(model) if p.ndim >= 2 and id(p) not in left_out]


def embedding_ids(model: nn.Module) -> set[int]:
    """The weights of embeddings, a tied output head among them, by identity."""
    return {id(module.weight) for module in model.modules() if isinstance(module, (nn.Embedding, nn.EmbeddingBag))}


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def count(model: nn.Module) -> int:
    """Entries of all trainable parameters."""
    return sum(parameter.numel() for parameter in _trainable(model))


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """The gradients that exist."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
