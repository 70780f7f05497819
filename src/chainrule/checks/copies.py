"""The user's own code on copies: probes may perturb, hook and run it again and again, and nothing of the user's changes.

Checks that compare two ways of computing the same thing run both here, so that both draw the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from chainrule.capture.batches import with_tensors
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

    dtype  of the copies of parameters, buffers and batch; casts inside the model stay

    Errors of the user's own code pass through.
    """
    model = setup.module
    batch = batch if dtype is None else with_tensors(batch, partial(_copy, dtype=dtype))
    copies: list[Copies] = []
    holder = _Holder(model, setup.loss, lambda: probe(copies[0]))
    with preserved(model, setup.loss, batch), torch.enable_grad():
        state = {name: _copy(tensor, dtype) for name, tensor in [*holder.named_parameters(), *holder.named_buffers()]}
        named = [name for name, _ in holder.named_parameters()]
        parameters = {name.removeprefix("model."): state[name] for name in named}
        copies.append(Copies(model, parameters, batch, setup.loss, seed))
        result: T = torch.func.functional_call(holder, state, ())
        return result


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward.

    loss       scalar, detached
    gradients  parameter path -> gradient; None where the loss does not reach the parameter
    """

    loss: Tensor
    gradients: Mapping[str, Tensor | None]


def run_pass(
    setup: Setup, batch: Any, *, training: bool | None = None, dtype: torch.dtype | None = None, seed: int = 0
) -> Pass:
    """loss(model, batch) and its gradients by torch.autograd, run eagerly.

    training  puts the model in this mode for the pass; None leaves every module in its own
    """

    def probe(copies: Copies) -> Pass:
        if training is not None:
            copies.model.train(training)
        value, leaves = copies.loss(), copies.trainable
        gradients = torch.autograd.grad(value, [*leaves.values()], allow_unused=True)
        return Pass(value.detach().clone(), dict(zip(leaves, gradients, strict=True)))

    return on_copies(setup, batch, probe, dtype=dtype, seed=seed)


def losses_in_eval(
    setup: Setup, batch: Any, *, seed: int = 0, calls: int = 1, buffers: Mapping[str, Tensor] = MappingProxyType({})
) -> list[Tensor]:
    """The losses of calls one after the other in eval mode, each with the same random numbers.

    buffers  path -> what this buffer holds before the first call, in place of what it holds now
    """

    def probe(copies: Copies) -> list[Tensor]:
        copies.model.eval()
        own = dict(copies.model.named_buffers(remove_duplicate=False))
        for path, value in buffers.items():
            own[path].copy_(value)
        return [copies.loss().detach().clone() for _ in range(calls)]

    return on_copies(setup, batch, probe, seed=seed)


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    cast = tensor.detach().clone()
    if dtype is not None and cast.is_floating_point():
        cast = cast.to(dtype)
    return cast.requires_grad_(tensor.requires_grad)
