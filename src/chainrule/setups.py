"""What a user hands to `check` and `explain`: the model, its loss, its batches, and what the training loop uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Setup:
    """A training set-up, as the user's loop would see it.

    model              the module that is trained
    loss               loss(model, batch) -> scalar tensor
    batches            iterable of batches; one is enough, two tell more
    optimizer          the optimizer that updates the model
    step               the user's own training step: step(model, batch, optimizer) -> loss
    causal             claim: outputs at position t depend on inputs at positions <= t; None = infer, and only warn
    batch_independent  claim: one example's loss does not depend on another example; None = infer, and only warn
    surrogate          module paths whose backward is meant to differ from the derivative (straight-through, reversal)
    schedule, scaler   what the loop also uses, where `step` does not hold it itself
    accumulate         micro-batches per update
    tied               groups of parameter names that are claimed to be one tensor
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    batches: Iterable[Any]
    optimizer: Optimizer | None = None
    step: Callable[..., Tensor] | None = None
    causal: bool | None = None
    batch_independent: bool | None = None
    surrogate: Sequence[str] = ()
    schedule: Any = None
    scaler: Any = None
    accumulate: int = 1
    tied: Sequence[Sequence[str]] = ()
