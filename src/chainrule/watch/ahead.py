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
from chainrule.capture.tape_adjoints import leaves_of
from chainrule.capture.tape_given import with_given
from chainrule.capture.tape_live import Arguments, LiveTape
from chainrule.capture.tape_places import running_line
from chainrule.finding import Line
from chainrule.watch.fork import said_by
from chainrule.watch.models import holding, models_of, restricted
from chainrule.watch.names import held_by
from chainrule.watch.replay import ReplayedLoss, autocast_now


@dataclass(frozen=True, eq=False)
class Iteration:
    """A recorded iteration, up to the gradients.

    root       the model, or a module that holds all of the program's models
    loss       of the root and what it was called with
    optimizers what trains the module that was called: one, or several that share it
    line       where the program called backward
    """

    root: nn.Module
    batch: Arguments
    loss: ReplayedLoss
    tape: Tape
    optimizers: tuple[Optimizer, ...]
    line: Line | None


class Ahead:
    """The iteration, recorded from `called` to `finish`; `iteration` is None until then.

    optimizer   whose step uses the loss, as far as is known
    optimizers  all of the program's
    given       the batch that each of its loaders gave last
    """

    def __init__(
        self,
        optimizer: Optimizer,
        optimizers: list[Optimizer],
        module: nn.Module,
        batch: Arguments,
        timer: threading.Timer,
        given: tuple[Any, ...],
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
        self._tape, self._given = LiveTape(self._root, batch), given
        self._reached: set[int] = set()  # ids of the leaves that the loss was computed from

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
        self._reached = {id(leaf) for leaf in leaves_of(loss)}
        tape = self._tape.finish(loss)
        tape = replace(tape, graph=with_given(tape.graph, self._given))
        replayed = ReplayedLoss(tape.graph, self._outputs, self._module, self._autocast)
        line = Line(source.file, source.line, source.code) if source else None
        self.iteration = Iteration(self._root, self._batch, replayed, tape, (self.optimizer,), line)

    @property
    def together(self) -> tuple[Optimizer, ...]:
        """The optimizer, and those that train other parameters of the called module by the same loss (AdamW beside Muon)."""
        shared = self._reached & {id(parameter) for parameter in self._module.parameters()}
        return tuple(
            other
            for other in self._optimizers
            if other is self.optimizer or any(id(parameter) in shared for parameter in held_by(other))
        )

    def examined(self, examine: Callable[[Iteration], Any]) -> tuple[bool, Any]:
        """(whether the examination came to an end, what came of it)."""
        assert self.iteration is not None
        for tensor, version, before in self._state:
            if tensor._version != version:  # by batch norm, or by what the program does before its step
                tensor.data.copy_(before)
        self._rewind()
        # OpenMP's threads of the parent did not come along, and a new thread has its own: two cores are used again.
        with ThreadPoolExecutor(1) as threads:
            work = threads.submit(_outcome, examine, self._of_optimizers(self.iteration))
            outcome: tuple[bool, Any] = work.result()
        return outcome

    def _of_optimizers(self, iteration: Iteration) -> Iteration:
        """The iteration as training by these optimizers: what the others train is held fixed."""
        graph, root = restricted(iteration.tape.graph, self._models, self.together, self._optimizers)
        tape, loss = replace(iteration.tape, graph=graph), replace(iteration.loss, graph=graph)
        return replace(iteration, root=root, loss=loss, tape=tape, optimizers=self.together)


def _outcome(examine: Callable[[Iteration], Any], iteration: Iteration) -> tuple[bool, Any]:
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return True, examine(iteration)
    except BaseException as error:
        return False, said_by(error)
