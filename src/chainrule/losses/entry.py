"""What the catalogue says of a loss: its function and formulas, what breaks when it is written naively, when to choose it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from chainrule.errors import SetupError

Task: TypeAlias = Literal["regression", "classification", "ranking", "distributions", "language"]
# What a target is, where there is one for each row; "other" where a loss compares something else.
Kind: TypeAlias = Literal["numbers", "counts", "binary", "classes"]
Target: TypeAlias = Kind | Literal["other"]
# Arguments of the function by name.
Inputs: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Curve:
    """One term of the loss along one number.

    axis       what that number is: "error = prediction − target"
    low, high  its range
    at         from the number, a tensor without axes, to the arguments of the function: one term
    """

    axis: str
    low: float
    high: float
    at: Callable[[Tensor], Inputs]


@dataclass(frozen=True)
class Naive:
    """The formula as it stands in a book, and where a computer's numbers break it.

    form      "−log(softmax(x)_y)"
    breaks    one sentence: at which numbers, and what becomes of them
    function  takes the arguments of the loss
    at        arguments in float32 at which the naive form, or its gradient, is inf or nan and the stable one is finite
    """

    form: str
    breaks: str
    function: Callable[..., Tensor]
    at: Callable[[], Inputs]


@dataclass(frozen=True, eq=False)
class Loss:
    """One loss of the catalogue.

    function   (prediction, target, *, settings) -> mean over the terms; its docstring has formula and gradient
    task       what is learned
    formula    of one term
    gradient   of one term
    outliers   what a target far off does
    choose     when to take it
    avoid      when not to
    draw       arguments in float64 from a generator: to test it
    curve      one term along one number, to be drawn
    target     what it takes as target
    prediction what it takes as prediction: what a model puts out (a number, logits), or what was made of it
    moves      the arguments along which `gradient` is taken
    naive      the naive form; None if the formula can be computed as it stands
    """

    function: Callable[..., Tensor]
    task: Task
    formula: str
    gradient: str
    outliers: str
    choose: str
    avoid: str
    draw: Callable[[torch.Generator], Inputs]
    curve: Curve
    target: Target = "other"
    prediction: Literal["output", "log probabilities"] = "output"
    moves: tuple[str, ...] = ("prediction",)
    naive: Naive | None = None

    @property
    def name(self) -> str:
        """As it is written in RUN.toml: "log-cosh" of the function `log_cosh`."""
        return self.function.__name__.replace("_", "-")


def require_same_shape(loss: str, prediction: Tensor, target: Tensor) -> None:
    """Raise SetupError where broadcasting would compare every prediction with every target."""
    if prediction.shape != target.shape:
        shapes = f"predictions of shape {tuple(prediction.shape)} and targets of shape {tuple(target.shape)}"
        raise SetupError(f"{loss} got {shapes}; expected one shape, or each would be compared with all others")


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def integers(generator: torch.Generator, high: int, *shape: int) -> Tensor:
    """Integers from 0 up to below `high`."""
    return torch.randint(high, shape, generator=generator)
