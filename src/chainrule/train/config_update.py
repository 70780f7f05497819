"""The update rule, the learning rate's course and the penalties, as frozen data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chainrule.train.config_rules import require, require_least

OptimizerName = Literal[
    "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "lion", "adafactor", "muon"
]
ScheduleName = Literal["cosine", "linear", "constant", "one-cycle", "plateau"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule (torch.optim)."""

    name: OptimizerName = "adamw"
    """Gradient descent: plain, with momentum, Nesterov's; scaled entry by entry (rmsprop ... lion) or as a matrix."""
    learning_rate: float = 3e-3
    """Peak of the schedule. Lion wants a third to a tenth of what adamw has."""
    weight_decay: float = 0.1
    """Decay of weight matrices a step, in units of the learning rate; biases and norms never decay."""
    decay_embeddings: bool = False
    """Let embeddings decay, too (a tied output head is one)."""
    beta1: float = 0.9
    """Memory of the mean gradient (adam, adamw, lion, muon), of the velocity (momentum, nesterov)."""
    beta2: float = 0.95
    """Memory of the mean squared gradient (rmsprop, adam, adamw), of lion's mean."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; larger ones are scaled down to it; 0 = never."""
    clip_value: float = 0.0
    """Largest entry of a gradient; larger ones are cut off, before the norm is taken; 0 = never."""

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"optimizer.learning_rate is {self.learning_rate}; it must be above 0")
        for name, what in (("weight_decay", "decay"), ("clip_norm", "clipping"), ("clip_value", "clipping")):
            value = getattr(self, name)
            require(value >= 0, f"optimizer.{name} is {value}; 0 means no {what}")
        for name in ("beta1", "beta2"):
            require(
                0 <= getattr(self, name) < 1, f"optimizer.{name} is {getattr(self, name)}; 0 up to below 1 is needed"
            )


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes: a linear warm-up, then a course."""

    name: ScheduleName = "cosine"
    """After the warm-up; one-cycle has its own rise of 30 % of the steps; plateau falls when validation stands still."""
    warmup_steps: int = 100
    """Steps in which the learning rate rises to its peak."""
    final_fraction: float = 0.05
    """Learning rate of the last step, as a share of the peak (cosine, linear, one-cycle); the lowest one (plateau)."""
    plateau_factor: float = 0.3
    """plateau: what the learning rate is multiplied with."""
    plateau_patience: int = 3
    """plateau: measurements without a better validation loss before that."""

    def __post_init__(self) -> None:
        require_least(self, "schedule", 0, "warmup_steps")
        require_least(self, "schedule", 1, "plateau_patience")
        require(
            0 <= self.final_fraction <= 1,
            f"schedule.final_fraction is {self.final_fraction}; a share from 0 to 1 is needed",
        )
        require(
            0 < self.plateau_factor < 1, f"schedule.plateau_factor is {self.plateau_factor}; it must be between 0 and 1"
        )


@dataclass(frozen=True)
class RegularisationConfig:
    """Penalties on the weight matrices, part of the loss that is trained; the validation loss is without them."""

    l1: float = 0.0
    """Times the sum of |w|: drives weights to 0."""
    l2: float = 0.0
    """Times half the sum of w²: shrinks weights; unlike optimizer.weight_decay it passes through the optimizer."""

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            require(
                getattr(self, name) >= 0, f"regularisation.{name} is {getattr(self, name)}; 0 means no such penalty"
            )
