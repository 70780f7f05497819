"""The tape on a program that is already running: switched on at a call of its model, off at its loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.capture.export import LossModule, scalar
from chainrule.capture.recorder import Recorder
from chainrule.capture.tape import Tape, eager, mutated, tape
from chainrule.capture.tape_adjoints import Adjoints
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_functions import functions_recorded
from chainrule.capture.tape_inputs import StandIns, inputs_of
from chainrule.capture.tape_memory import Memory
from chainrule.capture.tape_places import Places
from chainrule.capture.tape_state import State
from chainrule.graph import Ref


@dataclass(frozen=True, eq=False)
class Arguments:
    """What a program called its model with: the batch, as far as the model sees it."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class LiveTape:
    """Records what the program does from `start` to `finish`, on the program's own tensors.

    root   the model, or a module that holds all of the program's models
    batch  what the model is about to be called with
    """

    def __init__(self, root: nn.Module, batch: Arguments) -> None:
        self._root = LossModule(root, _no_loss, batch)
        self._adjoints = Adjoints()
        self._book = Book(Places(self._root))
        self._memory = Memory(self._book, self._adjoints.watch)
        self._state = State(self._book, self._memory, self._adjoints)
        stand_ins = StandIns(None, copies=False)
        self._recorder = Recorder(self._state, stand_ins)
        with self._adjoints.paused():
            self._inputs = inputs_of(self._root, stand_ins, self._book, self._memory)
        for ref in self._inputs.parameters:
            self._adjoints.leave_out(ref)
        self._open = ExitStack()
        self._applications: list[Any] = []

    def start(self) -> None:
        """From now on every operation of this thread is written down."""
        self._open.enter_context(eager(None))
        self._open.enter_context(self._book.places.followed())
        self._applications = self._open.enter_context(functions_recorded(self._recorder))
        self._open.enter_context(self._recorder.calls.on())

    def refs(self, value: Any) -> dict[str, Ref]:
        """The graph's value for each tensor in what the program holds, such as the model's output, by its place."""
        with self._recorder.calls.off():
            return {place: self._state.use(tensor) for place, tensor in tensors_of(value).items()}

    def finish(self, loss: Tensor) -> Tape:
        """Stop writing down, run the loss's backward, leave its gradients in place, and return what was recorded.

        Raises SetupError if the loss is no scalar or depends on no parameter.
        """
        self._open.close()
        value = scalar(loss)
        outputs = {"": self._state.use(value), **mutated(self._root, self._inputs, self._memory)}
        self._adjoints.backward(value, self._inputs.parameters)
        for ref, parameter in self._inputs.parameters.items():
            if ref in self._adjoints.recorded:
                parameter.grad = self._adjoints.recorded[ref].to(parameter.dtype).clone()
        return tape(self._book, self._adjoints, tuple(self._applications), outputs, value)


def _no_loss(_: Any, __: Any) -> Tensor:
    raise AssertionError("a live tape records a loss that the program computes; it has none of its own")
