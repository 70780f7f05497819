"""Passes of the user's own code on copies: loss and gradients by autograd.

The checks that compare two ways of computing the same thing (another split of the batch, another mode) run their passes
here, so that nothing of the user's changes and both ways draw the same random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.capture.export import Loss, LossModule
from chainrule.capture.preserve import preserved


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward.

    loss       scalar, detached
    gradients  parameter path -> gradient; None where the loss does not reach the parameter
    """

    loss: Tensor
    gradients: Mapping[str, Tensor | None]


def run_pass(
    model: nn.Module,
    loss: Loss,
    batch: Any,
    *,
    training: bool | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Pass:
    """loss(model, batch) and its gradients by torch.autograd, run eagerly on copies of parameters and buffers.

    training  puts the model in this mode for the pass; None leaves every module in its own
    dtype     runs it with parameters, buffers and batch in this dtype; casts inside the model stay
    seed      of the global generators, so that two passes draw alike

    Errors of the user's own code pass through.
    """
    model = getattr(model, "_orig_mod", model)
    root = LossModule(model, loss, batch)
    with preserved(model, loss, batch), torch.enable_grad():
        torch.manual_seed(seed)
        if training is not None:
            model.train(training)
        state = {name: _copy(tensor, dtype) for name, tensor in _distinct(root)}
        tensors = [_copy(tensor, dtype) for tensor in tensors_of(batch).values()]
        value = torch.func.functional_call(root, state, tuple(tensors))
        leaves = {name.removeprefix("model."): tensor for name, tensor in state.items() if tensor.requires_grad}
        gradients = torch.autograd.grad(value, [*leaves.values()], allow_unused=True)
        return Pass(value.detach().clone(), dict(zip(leaves, gradients, strict=True)))


def _distinct(root: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by their first name; functional_call ties the others to it."""
    return [*root.named_parameters(), *root.named_buffers()]


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    cast = tensor.detach().clone()
    if dtype is not None and cast.is_floating_point():
        cast = cast.to(dtype)
    return cast.requires_grad_(tensor.requires_grad)
