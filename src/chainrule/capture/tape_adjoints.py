"""The adjoints that the user's own backward produces: dL/dvalue, recorded by hooks while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chainrule.errors import SetupError
from chainrule.graph import Ref


class Adjoints:
    """Hooks, set as soon as a tensor holds a value, so that what happens to the tensor later does not shift them.

    A hook is told the sum over all uses of the value. What arrives is copied: a backward that writes into the
    gradient it was handed must not change what was recorded before.
    """

    def __init__(self) -> None:
        self.recorded: dict[Ref, Tensor] = {}
        self._watched: set[Ref] = set()
        self._paused = False
        self.listening = False

    def watch(self, tensor: Tensor, ref: Ref) -> None:
        """Record the gradient of the tensor, if it takes part in autograd, as the adjoint of `ref`."""
        if tensor.requires_grad and not self._paused and ref not in self._watched:
            self._watched.add(ref)
            if tensor.grad_fn is None:
                tensor.register_hook(partial(self._receive, ref))  # type: ignore[no-untyped-call]
            else:  # on the function, for after transpose_ a hook on the tensor would still sit at what it was before
                tensor.grad_fn.register_prehook(partial(self._receive_output, ref, tensor.output_nr))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside a custom Function's forward a tensor's place in autograd is not settled: watch nothing."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def leave_out(self, ref: Ref) -> None:
        """Set no hook for this value; `backward` reads its gradient from `.grad`."""
        self._watched.add(ref)

    def backward(self, loss: Tensor, own: Mapping[Ref, Tensor]) -> None:
        """Run loss.backward() and listen.

        own  the run's own parameters; `.grad` of every other leaf, such as a frozen teacher's, is afterwards as before
        """
        if not loss.requires_grad:
            raise SetupError(
                "the loss depends on no parameter that requires grad: nothing can be trained. "
                "Look for .detach(), torch.no_grad() or .item() between the parameters and the loss"
            )
        before = {leaf: leaf.grad for leaf in (*leaves_of(loss), *own.values())}
        for leaf in before:
            leaf.grad = None
        self.listening = True
        try:
            loss.backward()  # type: ignore[no-untyped-call]
            for ref, leaf in own.items():
                if leaf.grad is not None:
                    self.recorded[ref] = _dense(leaf.grad)
        finally:
            self.listening = False
            for leaf, grad in before.items():
                leaf.grad = grad

    def unreached(self) -> set[Ref]:
        """Values that take part in autograd and to which the backward brought nothing: their adjoint is zero."""
        return self._watched - self.recorded.keys()

    def _receive_output(self, ref: Ref, number: int, grads: tuple[Tensor | None, ...]) -> None:
        self._receive(ref, grads[number])

    def _receive(self, ref: Ref, grad: Tensor | None) -> None:
        if self.listening and grad is not None:
            copy = _dense(grad).clone()
            self.recorded[ref] = self.recorded[ref] + copy if ref in self.recorded else copy


def feeding_others(outputs: Sequence[Any], inputs: Sequence[Tensor]) -> list[int]:
    """Indices of the outputs of one operation from which another output was computed, as an LSTM cell's h from its c.

    What a hook on such an output is told includes what comes back through the other one, inside the operation.
    """
    functions = {i: tensor.grad_fn for i, tensor in enumerate(outputs) if getattr(tensor, "grad_fn", None) is not None}
    if len(functions) < 2:
        return []
    border = {tensor.grad_fn for tensor in inputs if tensor.grad_fn is not None}
    below = {i: _below(function, border) for i, function in functions.items()}
    return [i for i, function in functions.items() if any(function in below[j] for j in functions if j != i)]


def _below(function: Any, border: set[Any]) -> set[Any]:
    """The functions of the autograd graph below one, down to the border."""
    found: set[Any] = set()
    stack = [parent for parent, _ in function.next_functions]
    while stack:
        function = stack.pop()
        if function is not None and function not in found and function not in border:
            found.add(function)
            stack.extend(parent for parent, _ in function.next_functions)
    return found


def leaves_of(loss: Tensor) -> list[Tensor]:
    """The leaves of the autograd graph below a tensor."""
    functions = {loss.grad_fn, *_below(loss.grad_fn, set())}
    return [leaf for function in functions if (leaf := getattr(function, "variable", None)) is not None]


def _dense(grad: Tensor) -> Tensor:
    return grad.detach() if grad.layout is torch.strided else grad.detach().to_dense()
