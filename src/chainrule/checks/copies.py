"""The user's own code on copies: probes may perturb, hook and run it again and again, and nothing of the user's changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from chainrule.capture.export import Loss, scalar
from chainrule.capture.preserve import preserved
from chainrule.capture.tape import capture_by_tape
from chainrule.graph import Graph
from chainrule.setups import Setup

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Copies:
    """A model whose parameters and buffers are copies, while the probe runs.

    parameters  path -> the copy that the model holds now, frozen ones too; of tied ones the first path
    batch       the batch; the probe may run the loss on another one
    """

    model: nn.Module
    parameters: Mapping[str, Tensor]
    batch: Any
    _loss: Loss
    _seed: int

    @property
    def trainable(self) -> dict[str, Tensor]:
        """The parameters that require grad."""
        return {path: tensor for path, tensor in self.parameters.items() if tensor.requires_grad}

    def loss(self, batch: Any = None) -> Tensor:
        """loss(model, batch), each time with the same random numbers."""
        torch.manual_seed(self._seed)
        return scalar(self._loss(self.model, self.batch if batch is None else batch))

    def value(self, batch: Any = None) -> float:
        """The loss as a number; with gradients on, for a model may set hooks on its activations, which need them."""
        with torch.enable_grad():
            return float(self.loss(batch).detach())

    def taped(self) -> Graph:
        """The graph of an eager run with the copies as they are now."""
        torch.manual_seed(self._seed)
        return capture_by_tape(self.model, self._loss, self.batch)


class _Holder(nn.Module, Generic[T]):
    """What `functional_call` runs: the probe, while model and loss hold the copies."""

    def __init__(self, model: nn.Module, loss: Loss, probe: Callable[[], T]) -> None:
        super().__init__()
        self.model, self.loss, self.probe = model, loss, probe

    def forward(self) -> T:
        """Run the probe."""
        return self.probe()


def on_copies(
    setup: Setup,
    batch: Any,
    probe: Callable[[Copies], T],
    *,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> T:
    """What probe(copies) returns. Hooks that it leaves behind, modes, gradients and generators are put back.

    dtype  of the copies of parameters and buffers; casts inside the model stay

    Errors of the user's own code pass through.
    """
    model = getattr(setup.model, "_orig_mod", setup.model)
    copies: list[Copies] = []
    holder = _Holder(model, setup.loss, lambda: probe(copies[0]))
    with preserved(model, setup.loss, batch), torch.enable_grad():
        state = {name: _copy(tensor, dtype) for name, tensor in [*holder.named_parameters(), *holder.named_buffers()]}
        named = [name for name, _ in holder.named_parameters()]
        parameters = {name.removeprefix("model."): state[name] for name in named}
        copies.append(Copies(model, parameters, batch, setup.loss, seed))
        result: T = torch.func.functional_call(holder, state, ())
        return result


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    cast = tensor.detach().clone()
    if dtype is not None and cast.is_floating_point():
        cast = cast.to(dtype)
    return cast.requires_grad_(tensor.requires_grad)
