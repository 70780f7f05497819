"""In the copy of a program that went ahead: its iteration from the model's call to the step that uses the loss."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.capture.preserve import global_generators
from chainrule.capture.tape import Tape
from chainrule.capture.tape_live import Arguments, LiveTape
from chainrule.capture.tape_places import running_line
from chainrule.finding import Line
from chainrule.watch.fork import said_by
from chainrule.watch.models import holding, models_of, restricted
from chainrule.watch.replay import ReplayedLoss, autocast_now


@dataclass(frozen=True, eq=False)
class Iteration:
    """A recorded iteration, up to the gradients.

    root       the model, or a module that holds all of the program's models
    loss       of the root and what it was called with
    optimizer  what trains the module that was called
    line       where the program called backward
    """

    root: nn.Module
    batch: Arguments
    loss: ReplayedLoss
    tape: Tape
    optimizer: Optimizer
    line: Line | None


class Ahead:
    """The iteration, recorded from `called` to `finish`; `iteration` is None until then.

    optimizer   whose step uses the loss, as far as is known
    optimizers  all of the program's
    """

    def __init__(
        self,
        optimizer: Optimizer,
        optimizers: list[Optimizer],
        module: nn.Module,
        batch: Arguments,
        timer: threading.Timer,
    ) -> None:
        self.optimizer, self._optimizers = optimizer, optimizers
        self.iteration: Iteration | None = None
        self._module, self._batch, self._timer = module, batch, timer
        self._rewind = global_generators()
        self._models = models_of(module, optimizers)
        self._root = next(iter(self._models.values())) if len(self._models) == 1 else holding(self._models)
        state = (*self._root.parameters(), *self._root.buffers())
        self._state = [(tensor, tensor._version, tensor.detach().clone()) for tensor in state]
        self._autocast = autocast_now()
        self._tape = LiveTape(self._root, batch)

    def called(self) -> Any:
        """Call the model with the tape on; it stays on."""
        self._tape.start()
        output = self._module(*self._batch.args, **self._batch.kwargs)
        self._outputs = self._tape.refs(output)
        return output

    def finish(self, loss: Tensor) -> None:
        """The loss is reached: off with the tape. The gradients are left where the program expects them."""
        self._timer.cancel()
        source = running_line()
        tape = self._tape.finish(loss)
        replayed = ReplayedLoss(tape.graph, self._outputs, self._module, self._autocast)
        line = Line(source.file, source.line, source.code) if source else None
        self.iteration = Iteration(self._root, self._batch, replayed, tape, self.optimizer, line)

    def examined(self, examine: Callable[[Iteration], Any]) -> tuple[bool, Any]:
        """(whether the examination came to an end, what came of it)."""
        assert self.iteration is not None
        for tensor, version, before in self._state:
            if tensor._version != version:  # by batch norm, or by what the program does before its step
                tensor.data.copy_(before)
        self._rewind()
        # OpenMP's threads of the parent did not come along, and a new thread has its own: two cores are used again.
        with ThreadPoolExecutor(1) as threads:
            work = threads.submit(_outcome, examine, self._of_optimizer(self.iteration))
            outcome: tuple[bool, Any] = work.result()
        return outcome

    def _of_optimizer(self, iteration: Iteration) -> Iteration:
        """The iteration as training by this one optimizer: what the others train is held fixed."""
        graph, root = restricted(iteration.tape.graph, self._models, self.optimizer, self._optimizers)
        tape = replace(iteration.tape, graph=graph)
        return replace(
            iteration, root=root, loss=replace(iteration.loss, graph=graph), tape=tape, optimizer=self.optimizer
        )


def _outcome(examine: Callable[[Iteration], Any], iteration: Iteration) -> tuple[bool, Any]:
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return True, examine(iteration)
    except BaseException as error:
        return False, said_by(error)
