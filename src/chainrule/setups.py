"""What a user hands to `check` and `explain`: the model, its loss, its batches, and what the training loop uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

M = TypeVar("M")


@dataclass(frozen=True)
class Setup:
    """A training set-up, as the user's loop would see it.

    model              the module that is trained
    loss               loss(model, batch) -> scalar tensor
    batches            iterable of batches; one is enough, two tell more. An iterator can be run through only once, so what
                       checks take from one is kept, and `setup.batches` gives it again
    optimizer          the optimizer that updates the model, or several that share its parameters (Muon and AdamW)
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
    optimizer: Optimizer | Sequence[Optimizer] | None = None
    step: Callable[..., Tensor] | None = None
    causal: bool | None = None
    batch_independent: bool | None = None
    surrogate: Sequence[str] = ()
    schedule: Any = None
    scaler: Any = None
    accumulate: int = 1
    tied: Sequence[Sequence[str]] = ()

    @property
    def module(self) -> nn.Module:
        """The model, out of the wrapper that torch.compile puts around it."""
        return uncompiled(self.model)

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """What updates the model: none, one or several."""
        if self.optimizer is None:
            return ()
        return tuple(self.optimizer) if isinstance(self.optimizer, Sequence) else (self.optimizer,)

    def __post_init__(self) -> None:
        if isinstance(self.batches, Iterator):
            object.__setattr__(self, "batches", Replay(self.batches))


def uncompiled(model: M) -> M:
    """What torch.compile wrapped; any other model is itself."""
    module: M = getattr(model, "_orig_mod", model)
    return module


class Replay:
    """A one-shot iterator that can be run through again: what was taken from it is kept, the rest stays where it is."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._taken: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while True:
            while position < len(self._taken):
                yield self._taken[position]
                position += 1
            try:
                self._taken.append(next(self._iterator))
            except StopIteration:
                return
