"""What the checks of a loss function look at: the function, and predictions and targets as training begins with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from chainrule.checks.own_loss.slopes import Slopes, slopes
from chainrule.errors import SetupError
from chainrule.finding import Finding, Line, Severity

ENTRIES = 64
Kind = Literal["numbers", "binary", "classes"]


@dataclass(frozen=True, eq=False)
class LossSubject:
    """A loss of the user's own, called as function(prediction, target).

    prediction  (B, ...) of a model with its initial weights
    target      (B, ...)
    where       "my_losses.py:focal"
    source      the line of its definition, if known
    command     the command line that repeats the examination: all checks of it, it is quick
    """

    function: Callable[[Any, Any], Any]
    prediction: Tensor
    target: Tensor
    where: str = "loss"
    source: Line | None = None
    seed: int = 0
    command: str = ""

    @property
    def kind(self) -> Kind:
        """What the targets are: class numbers beside one logit a class, zeros and ones, or numbers."""
        if not self.target.is_floating_point() and self.prediction.dim() == self.target.dim() + 1:
            return "classes"
        two = bool(((self.target == 0) | (self.target == 1)).all())
        return "binary" if two and self.target.numel() == self.prediction.numel() else "numbers"

    @property
    def of_probabilities(self) -> bool:
        """True if the predictions are probabilities rather than logits: all lie in [0, 1]."""
        return self.kind != "numbers" and bool(((self.prediction >= 0) & (self.prediction <= 1)).all())

    @cached_property
    def exact(self) -> tuple[Tensor, Tensor]:
        """Prediction and target in float64; class numbers stay integers."""
        target = self.target.double() if self.target.is_floating_point() else self.target
        return self.prediction.detach().double(), target

    @cached_property
    def repeats(self) -> bool:
        """True if two runs on the same numbers give the same loss."""
        return torch.equal(self.value(*self.exact), self.value(*self.exact))

    @cached_property
    def slopes(self) -> Slopes:
        """Autograd's gradient beside differences of the loss, in float64; no way to the predictions counts as a slope of 0."""
        prediction, target = self.exact
        _, gradient = self.value_and_gradient(prediction, target)
        given = torch.zeros_like(prediction) if gradient is None else gradient
        return slopes(self.value, prediction, target, given, self._places())

    def _places(self) -> Tensor:
        """Flat indices of some entries of the predictions, by the seed; of classes half are the logits of the targets.

        Of a large vocabulary no entry drawn at random would be one of those.
        """
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(self.prediction.numel(), generator=generator)[:ENTRIES]
        if self.kind == "classes":
            classes = self.prediction.shape[-1]
            label_N = self.target.flatten().cpu().clamp(0, classes - 1)[: ENTRIES // 2]
            drawn = torch.cat([torch.arange(len(label_N)) * classes + label_N, drawn[: ENTRIES - len(label_N)]])
        return drawn.sort().values

    def value(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss, without a gradient."""
        with torch.no_grad():
            return self.call(prediction, target).detach()

    def value_and_gradient(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """The loss and its gradient to the prediction by autograd; None if autograd finds no way there."""
        leaf = prediction.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = self.call(leaf, target)
            if not value.requires_grad:
                return value, None
            (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
        return value.detach(), gradient

    def finding(
        self,
        check: str,
        severity: Severity,
        message: str,
        *,
        evidence: Mapping[str, Any],
        advice: str,
        rows: tuple[tuple[str, str, str], ...] = (),
        unresolved: bool = False,
    ) -> Finding:
        """What a check found, with the place of the function and the command that repeats the examination."""
        return Finding(
            check,
            severity,
            self.where,
            message,
            source=self.source,
            evidence=evidence,
            rows=rows,
            notes=(advice,),
            reproduce=self.command,
            unresolved=unresolved,
        )

    def call(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of clones, so that a function that writes into its arguments hurts nobody.

        Raises SetupError if it does not return one number as a tensor; what the user's function raises passes through.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are the user's; training shows them
            value = self.function(prediction.clone(), target.clone())
        if not isinstance(value, Tensor):
            raise SetupError(
                f"{self.where} returned {type(value).__name__} for predictions {tuple(prediction.shape)} and targets "
                f"{tuple(target.shape)}, expected a tensor of one number: leave out .item() and float(), reduce with .mean()"
            )
        if value.numel() != 1:
            raise SetupError(
                f"{self.where} returned a tensor of shape {tuple(value.shape)} for predictions {tuple(prediction.shape)} "
                f"and targets {tuple(target.shape)}, expected one number: reduce it with .mean()"
            )
        return value.reshape(())


def first_look(subject: LossSubject) -> tuple[float, float]:
    """The loss of untrained predictions, and how hard one example pulls at its own.

    Raises SetupError if the function raises there, or does not return one number as a tensor.
    """
    try:
        value, gradient = subject.value_and_gradient(subject.prediction, subject.target)
    except SetupError:
        raise
    except Exception as error:
        shapes = f"predictions {tuple(subject.prediction.shape)} and targets {tuple(subject.target.shape)}"
        raise SetupError(f"{subject.where} raised {type(error).__name__} for {shapes}: {error}") from error
    return float(value), 0.0 if gradient is None else pull(gradient)


def pull(gradient: Tensor) -> float:
    """Median over the B examples of B times the norm of the gradient to one example's prediction."""
    return float(len(gradient) * gradient.reshape(len(gradient), -1).norm(dim=1).median())
