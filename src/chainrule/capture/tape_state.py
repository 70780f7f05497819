"""What the parts of the recorder share: the book, the tensors' memory, and how an operation of the run sees its inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.tape_adjoints import Adjoints
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_calls import tensors_in, with_each_tensor
from chainrule.capture.tape_draws import Draws
from chainrule.capture.tape_memory import Memory
from chainrule.graph import Argument, Ref

aten = torch.ops.aten


class State:
    """The state of one recorded run.

    grad_outside  whether autograd was on around the custom Function that is running; None if none is
    """

    def __init__(self, book: Book, memory: Memory, adjoints: Adjoints) -> None:
        self.book, self.memory, self.adjoints = book, memory, adjoints
        self.draws = Draws(book, memory)
        self.grad_outside: bool | None = None
        self._detached: dict[Ref, Ref] = {}

    @property
    def cutting(self) -> bool:
        """True where the user has autograd off: what is computed there is cut from the trainable leaves.

        The forward of a custom Function runs with autograd off in any case; there it is what the user set around it.
        """
        return not (torch.is_grad_enabled() if self.grad_outside is None else self.grad_outside)

    @contextmanager
    def inlining(self, function: str) -> Iterator[None]:
        """While the forward of a custom Function runs: its operations become nodes that bear its name."""
        outside, name = self.grad_outside, self.book.function
        self.grad_outside = torch.is_grad_enabled() if outside is None else outside
        self.book.function = function
        try:
            with self.adjoints.paused():
                yield
        finally:
            self.grad_outside, self.book.function = outside, name

    def use(self, tensor: Tensor) -> Ref:
        """The value that the tensor holds, as an operation that runs now sees it: detached if it comes from no_grad."""
        self.draws.settle(tensor)
        ref = self.memory.ref(tensor)
        if self.book.flow.get(ref.name) != "cut" or self.cutting:
            return ref
        if ref not in self._detached:
            self._detached[ref] = self.book.node(aten.detach.default, {"self": ref}, self.book.value(ref))
        return self._detached[ref]

    def arguments(self, bound: Mapping[str, Any]) -> dict[str, Argument]:
        """An operation's arguments with the graph's values in place of tensors."""
        return {name: self.argument(value) for name, value in bound.items()}

    def argument(self, value: Any) -> Argument:
        """One argument, without the user's generator: nothing is drawn from it again."""
        return None if isinstance(value, torch.Generator) else with_each_tensor(value, self.use)

    def node(self, op: OpOverload, arguments: Mapping[str, Argument], value: Any) -> Ref:
        """A node of the run. Outside custom Functions autograd itself says whether a gradient flows to it."""
        if self.cutting or self.grad_outside is not None:
            return self.book.node(op, arguments, value, cutting=self.cutting)
        return self.book.node(op, arguments, value, requires_grad=any(t.requires_grad for t in tensors_in(value)))
