"""The loss of a table: by the goal or as chosen, with classes balanced if asked; and what it is called with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from chainrule.data.tables.column import Floats
from chainrule.data.tables.target import Goal, Target
from chainrule.errors import ConfigError
from chainrule.losses.classification import cross_entropy, log_loss
from chainrule.train.chosen_loss import ChosenLoss, choose_loss
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch


def loss_of(config: TrainConfig, target: Target, training_R: Floats) -> ChosenLoss:
    """The loss. Raises ConfigError for one that does not suit the goal, or knows no weights."""
    chosen = choose_loss(config.loss, target.goal)
    return chosen if config.table.class_weights == "none" else _balanced(chosen, target, training_R)


def _balanced(chosen: ChosenLoss, target: Target, training_R: Floats) -> ChosenLoss:
    """Weights n / (K n_c): every class counts the same, and their mean over the training rows is 1."""
    if chosen.function not in (log_loss, cross_entropy):
        raise ConfigError(
            f"table.class_weights is 'balanced', which log-loss and cross-entropy know; the loss is {chosen.name}"
        )
    counts_K = torch.bincount(torch.from_numpy(training_R).long(), minlength=len(target.classes)).clamp_min(1)
    weight_K = counts_K.sum() / (len(counts_K) * counts_K)
    weighted = weighted_log_loss if chosen.function is log_loss else weighted_cross_entropy
    return replace(chosen, name=f"{chosen.name}, classes balanced", function=partial(weighted, weight_K=weight_K))


def weighted_log_loss(prediction_B: Tensor, target_B: Tensor, *, weight_K: Tensor) -> Tensor:
    """L = −Σ w_t log p_t / B."""
    weight_B = weight_K.to(prediction_B)[target_B.long()]
    return torch.nn.functional.binary_cross_entropy_with_logits(prediction_B, target_B, weight_B)


def weighted_cross_entropy(prediction_BK: Tensor, target_B: Tensor, *, weight_K: Tensor) -> Tensor:
    """L = −Σ w_y log p_y / B: divided by the rows, not by their weights, so that parts of a batch add up to the whole."""
    weight_K = weight_K.to(prediction_BK)
    return torch.nn.functional.cross_entropy(prediction_BK, target_B, weight_K, reduction="sum") / len(target_B)


def arguments(model: nn.Module, batch: Batch, *, goal: Goal) -> tuple[Tensor, Tensor]:
    """(prediction, target) of a batch, in the shapes that a loss is called with."""
    outputs_BO = model(batch["inputs"])
    return outputs_BO if goal == "multi-class" else outputs_BO.squeeze(1), batch["targets"]
