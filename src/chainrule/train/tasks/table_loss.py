"""The loss of a table: by the goal, by a name of the catalogue, or a function of the user's own file.

Every one is called as function(prediction, target) -> scalar:

    regression   prediction (B,), target (B,) standardised numbers; counts as they are
    binary       prediction (B,) logits of the second class, target (B,) 0.0 or 1.0
    multi-class  prediction (B, K) logits, target (B,) class numbers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from chainrule.data.tables.column import Floats
from chainrule.data.tables.target import Goal, Target
from chainrule.errors import ChainruleError, ConfigError, SetupError
from chainrule.losses import CATALOGUE, loss_called
from chainrule.losses.classification import cross_entropy, log_loss
from chainrule.losses.regression import mse
from chainrule.setup_file import is_file_target, load_loss
from chainrule.train.config import TableConfig
from chainrule.train.engine import Batch, Loss
from chainrule.train.task import OwnLoss

Function = Callable[[Tensor, Tensor], Tensor]
STANDARD: Mapping[Goal, tuple[str, Function]] = MappingProxyType(
    {"regression": ("mse", mse), "binary": ("log-loss", log_loss), "multi-class": ("cross-entropy", cross_entropy)}
)
SUITED: Mapping[Goal, tuple[str, ...]] = MappingProxyType(  # what a loss of the catalogue takes as target
    {"regression": ("numbers", "counts"), "binary": ("binary",), "multi-class": ("classes",)}
)


def learns_counts(name: str) -> bool:
    """The loss takes counts and a logarithm of their rate, not standardised numbers."""
    return name != "auto" and not is_file_target(name) and loss_called(name)[0].target == "counts"


def own_loss(name: str) -> Function:
    """The function of the user's file. Raises ConfigError if file or function is missing, or the file raises."""
    try:
        return load_loss(name)
    except SetupError as error:
        raise ConfigError(f"table.loss is {name!r}: {error}") from error


def called(name: str, function: Function, prediction: Tensor, target: Tensor) -> Tensor:
    """function(prediction, target). Raises SetupError for what a function of the user's own raises, or if it is no mean."""
    shapes = f"predictions {tuple(prediction.shape)} and targets {tuple(target.shape)}"
    try:
        value = function(prediction, target)
    except ChainruleError:
        raise
    except Exception as error:
        raise SetupError(f"{name} raised {type(error).__name__} for {shapes}: {error}") from error
    if isinstance(value, Tensor) and value.numel() != 1:
        shape = tuple(value.shape)
        raise SetupError(
            f"{name} returned a tensor of shape {shape} for {shapes}, expected one number: reduce it with .mean()"
        )
    return value


def choose_loss(settings: TableConfig, target: Target, training_R: Floats) -> tuple[str, Function]:
    """Its name and the function. Raises ConfigError for a loss that does not suit the goal, or knows no weights."""
    name, function = _chosen(settings.loss, target.goal)
    if settings.class_weights == "none":
        return name, function
    return f"{name}, classes balanced", _balanced(name, function, target, training_R)


def _chosen(name: str, goal: Goal) -> tuple[str, Function]:
    if is_file_target(name):
        return name, own_loss(name)
    return STANDARD[goal] if name == "auto" else _named(name, goal)


def _named(name: str, goal: Goal) -> tuple[str, Function]:
    loss, settings = loss_called(name)
    if loss.target not in SUITED[goal]:
        suited = ", ".join(other.name for other in CATALOGUE if other.target in SUITED[goal])
        raise ConfigError(
            f"table.loss is {name!r}, which does not suit {goal} (it takes {loss.target}); these do: {suited}"
        )
    return name, partial(loss.function, **settings) if settings else loss.function


def _balanced(name: str, function: Function, target: Target, training_R: Floats) -> Function:
    """Weights n / (K n_c): every class counts the same, and their mean over the training rows is 1."""
    if function not in (log_loss, cross_entropy):
        raise ConfigError(
            f"table.class_weights is 'balanced', which log-loss and cross-entropy know; the loss is {name}"
        )
    counts_K = torch.bincount(torch.from_numpy(training_R).long(), minlength=len(target.classes)).clamp_min(1)
    weight_K = counts_K.sum() / (len(counts_K) * counts_K)
    if function is log_loss:
        return partial(weighted_log_loss, weight_K=weight_K)
    return partial(weighted_cross_entropy, weight_K=weight_K)


def weighted_log_loss(prediction_B: Tensor, target_B: Tensor, *, weight_K: Tensor) -> Tensor:
    """L = −Σ w_t log p_t / B."""
    weight_B = weight_K.to(prediction_B)[target_B.long()]
    return torch.nn.functional.binary_cross_entropy_with_logits(prediction_B, target_B, weight_B)


def weighted_cross_entropy(prediction_BK: Tensor, target_B: Tensor, *, weight_K: Tensor) -> Tensor:
    """L = −Σ w_y log p_y / B: divided by the rows, not by their weights, so that parts of a batch add up to the whole."""
    weight_K = weight_K.to(prediction_BK)
    return torch.nn.functional.cross_entropy(prediction_BK, target_B, weight_K, reduction="sum") / len(target_B)


def of_batch(function: Function, target: Target) -> Loss:
    """loss(model, batch) of function(prediction, target)."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return function(*arguments(model, batch, target.goal))

    return loss


def arguments(model: nn.Module, batch: Batch, goal: Goal) -> tuple[Tensor, Tensor]:
    """(prediction, target) of a batch, in the shapes that a loss is called with."""
    outputs_BO = model(batch["inputs"])
    return outputs_BO if goal == "multi-class" else outputs_BO.squeeze(1), batch["targets"]


def users_own(name: str, function: Function, target: Target) -> OwnLoss | None:
    """The loss as the preflight examines it; None if it is one of the catalogue."""
    return OwnLoss(name, function, partial(arguments, goal=target.goal)) if is_file_target(name) else None
