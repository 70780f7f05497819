"""The loss that a run trains with: that of its goal, a name of the catalogue, or a function of the user's own file.

Every one is called as function(prediction, target) -> the mean over the examples, a scalar:

    regression   prediction (B,), target (B,) standardised numbers; counts as they are
    binary       prediction (B,) logits of the second class, target (B,) 0.0 or 1.0
    multi-class  prediction (B, K) logits, target (B,) class numbers
    text         prediction (N, V) logits, target (N,) numbers of the next tokens, of all windows one after the other
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from chainrule.errors import ChainruleError, ConfigError, SetupError
from chainrule.losses import CATALOGUE, loss_called
from chainrule.losses.classification import cross_entropy, log_loss
from chainrule.losses.entry import Loss as Entry
from chainrule.losses.regression import mse
from chainrule.setup_file import is_file_target, load_loss, located, split_target, trace
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Loss
from chainrule.train.task import OwnLoss

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Arguments: TypeAlias = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
Goal: TypeAlias = Literal["regression", "binary", "multi-class", "text"]


@dataclass(frozen=True)
class ChosenLoss:
    """A loss and what it is called.

    name  as it was written; of the user's own the file's name without its folder: "my_losses.py:focal"
    own   the file of the user; None if the loss is one of the catalogue
    """

    name: str
    function: Function
    own: Path | None = None

    def examined(self, arguments: Arguments) -> OwnLoss | None:
        """What the preflight examines by itself: the user's own loss, no other."""
        return OwnLoss(self.name, self.function, arguments) if self.own else None

    def origin(self) -> dict[str, str]:
        """What a checkpoint says of the user's file, so that a resumed run is not trained with another loss."""
        return {"loss_file": hashlib.sha256(self.own.read_bytes()).hexdigest()} if self.own else {}


STANDARD: Mapping[Goal, ChosenLoss] = MappingProxyType(
    {
        "regression": ChosenLoss("mse", mse),
        "binary": ChosenLoss("log-loss", log_loss),
        "multi-class": ChosenLoss("cross-entropy", cross_entropy),
        "text": ChosenLoss("cross-entropy", cross_entropy),
    }
)
SUITED: Mapping[str, tuple[str, ...]] = MappingProxyType(  # what a loss of the catalogue takes as target
    {
        "regression": ("numbers", "counts"),
        "binary": ("binary",),
        "multi-class": ("classes",),
        "text": ("classes",),
        "a table": ("numbers", "counts", "binary", "classes"),
    }
)


def choose_loss(text: str, goal: Goal) -> ChosenLoss:
    """What `loss = text` means for a goal.

    Raises ConfigError for an unknown name or setting, a loss that does not suit the goal, a file or function that is not
    there, or a file that raises.
    """
    if text == "auto":
        return STANDARD[goal]
    return _of_file(text) if is_file_target(text) else _of_catalogue(text, goal)


def settled_loss(config: TrainConfig) -> str:
    """`config.loss` with the path of a user's file absolute.

    Raises ConfigError at once for what could not be trained with: the reading of the data may take minutes. The user's
    file is run for that, and once more when the task is made.
    """
    text = located(config.loss, Path())
    if is_file_target(text):
        _of_file(text)
    elif text != "auto":
        _of_catalogue(text, "text" if config.task == "text" else "a table")
    return text


def _of_file(text: str) -> ChosenLoss:
    try:
        function, (file, _) = load_loss(text), split_target(text)
    except SetupError as error:
        raise ConfigError(f"loss is {text!r}: {error}") from error
    return ChosenLoss(Path(text).name, function, file)


def _of_catalogue(text: str, goal: str) -> ChosenLoss:
    loss, settings = loss_called(text)
    if not suits(loss, goal):
        suited = ", ".join(other.name for other in CATALOGUE if suits(other, goal))
        raise ConfigError(
            f"loss is {text!r}, which does not suit {goal}: {_reason(loss)}; these do: {suited}; or your own, FILE.py:function"
        )
    return ChosenLoss(text, partial(loss.function, **settings) if settings else loss.function)


def suits(loss: Entry, goal: str) -> bool:
    """Model and data of this goal give the loss what it takes."""
    return loss.target in SUITED[goal] and loss.prediction == "output"


def _reason(loss: Entry) -> str:
    """Why it may not suit."""
    if loss.prediction != "output":
        return f"it takes {loss.prediction}, and the model gives logits"
    return (
        "it does not compare predictions with targets" if loss.target == "other" else f"its targets are {loss.target}"
    )


def takes_counts(text: str) -> bool:
    """The loss takes counts and a logarithm of their rate, not standardised numbers."""
    return text != "auto" and not is_file_target(text) and loss_called(text)[0].target == "counts"


def tried(loss: ChosenLoss, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of some predictions. Raises SetupError for what a function of the user's own raises, or if it is no number."""
    shapes = f"predictions {tuple(prediction.shape)} and targets {tuple(target.shape)}"
    try:
        value: Any = loss.function(prediction, target)
    except ChainruleError:
        raise
    except Exception as error:
        raise SetupError(
            f"{loss.name} raised {type(error).__name__} for {shapes}: {error}\n{trace(error, __file__)}"
        ) from error
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise SetupError(
            f"{loss.name} returned {kind} for {shapes}, expected a tensor of one number: leave out .item()"
        )
    if value.numel() != 1:
        shape = tuple(value.shape)
        raise SetupError(
            f"{loss.name} returned a tensor of shape {shape} for {shapes}, expected one number: reduce it with .mean()"
        )
    number: Tensor = value
    return number


def of_batch(function: Function, arguments: Arguments) -> Loss:
    """loss(model, batch) = function(prediction, target), in float32 where the model's products are shorter."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        prediction, target = arguments(model, batch)
        short = prediction.dtype in (torch.bfloat16, torch.float16)
        return function(prediction.float() if short else prediction, target)

    return loss
