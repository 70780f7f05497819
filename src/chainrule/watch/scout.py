"""The preflight of a running program: a copy of the process goes ahead, records the first iteration, and is examined.

At the first call of a model that an optimizer trains, the process forks. The child switches the tape on and lets the
program run to its loss; there it stops, is examined, and sends what was found. The parent waits, and then makes the very
same call with nothing switched on: whatever the examination did, the program cannot tell.
"""

from __future__ import annotations

import gc
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.data.dataloader import _BaseDataLoaderIter

from chainrule.capture.preserve import global_generators
from chainrule.capture.tape import Tape
from chainrule.capture.tape_adjoints import leaves_of
from chainrule.capture.tape_live import Arguments, LiveTape
from chainrule.capture.tape_places import running_line
from chainrule.finding import Line
from chainrule.watch.copies import WorkFailedError, be_quiet, fork, received, send_and_exit, why_not
from chainrule.watch.names import roots_of
from chainrule.watch.patches import Around, all_patched
from chainrule.watch.replay import ReplayedLoss

PATIENCE = 120.0  # seconds from the model's call to the loss, after which the copy gives up
MOST = 3  # preflights of one program: one for each optimizer that trains something of its own


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


class Scout:
    """Sends copies ahead while its `armed` block runs.

    examine  what the child does with an iteration; its result must be picklable
    tell     what the parent does with that result
    give_up  what the parent does with the reason why there is no result
    """

    def __init__(
        self,
        examine: Callable[[Iteration], Any],
        tell: Callable[[Any], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._examine, self._tell, self._give_up = examine, tell, give_up
        self._optimizers: list[Optimizer] = []
        self._examined: set[int] = set()  # optimizers
        self._sent = 0
        self._inlet = -1  # of the pipe to the parent, in a child
        self._ahead: _Ahead | None = None
        self._call: Callable[..., Any] = nn.Module.__call__

    @contextmanager
    def armed(self) -> Iterator[None]:
        """While the block runs, the first calls of models that are trained are scouted."""
        self._optimizers = [thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer)]
        with all_patched([(Optimizer, "__init__", self._around_new), *self._in_the_copy()]):
            self._arm()
            try:
                yield
            except BaseException as error:
                if self.is_copy:  # the program failed in the copy; it will fail in the parent too, and say so there
                    self._leave(False, f"the program raised {type(error).__name__}: {error}")
                raise
            finally:
                if self.is_copy:
                    self._leave(False, "the program ended before a loss was differentiated")
                self._disarm()

    @property
    def is_copy(self) -> bool:
        """True in the copy that went ahead."""
        return self._inlet >= 0

    def loss_reached(self, loss: Tensor) -> None:
        """The program is about to differentiate its loss: in the copy, the end of the way."""
        ahead = self._ahead
        if self.is_copy and ahead is not None and ahead.trains(loss):
            self._ahead = None  # the examination differentiates too
            self._leave(*ahead.examined(loss, self._examine))

    def updated(self) -> None:
        """The program has updated something: if another optimizer is still unexamined, look out for its model."""
        if len(self._examined) < len(self._optimizers) and self._sent < MOST:
            self._arm()

    def _arm(self) -> None:
        original = self._call
        scout = self

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            optimizer = scout._trained_by(module)
            if optimizer is None:
                return original(module, *args, **kwargs)
            scout._disarm()
            return scout._at(optimizer, module, args, kwargs)

        nn.Module.__call__ = call  # type: ignore[method-assign]

    def _disarm(self) -> None:
        nn.Module.__call__ = self._call  # type: ignore[method-assign]

    def _trained_by(self, module: nn.Module) -> Optimizer | None:
        """The optimizer, not examined yet, that holds a parameter of a module that is being called for training."""
        if not (self._optimizers and torch.is_grad_enabled() and module.training):
            return None
        own = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
        waiting = [optimizer for optimizer in self._optimizers if id(optimizer) not in self._examined]
        return next(
            (o for o in waiting if any(id(p) in own for group in o.param_groups for p in group["params"])), None
        )

    def _at(self, optimizer: Optimizer, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._examined.add(id(optimizer))
        self._sent += 1
        if reason := why_not():
            self._give_up(reason)
            return module(*args, **kwargs)
        outlet, inlet = os.pipe()
        child = fork()
        if child == 0:
            os.close(outlet)
            return self._go_ahead(inlet, optimizer, module, args, kwargs)
        os.close(inlet)
        try:
            self._tell(received(outlet, child))
        except WorkFailedError as error:
            self._give_up(str(error))
        return module(*args, **kwargs)

    def _go_ahead(self, inlet: int, optimizer: Optimizer, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._inlet = inlet
        try:
            be_quiet()
            timer = threading.Timer(
                PATIENCE, self._leave, (False, f"no loss was differentiated within {PATIENCE:.0f} s")
            )
            timer.daemon = True
            timer.start()
            self._ahead = _Ahead(optimizer, module, Arguments(args, kwargs), timer)
            return self._ahead.called()
        except BaseException as error:
            self._leave(False, _words(error))

    def _leave(self, good: bool, result: Any) -> None:
        inlet, self._inlet = self._inlet, -1
        if inlet >= 0:
            send_and_exit(good, result, inlet)

    def _around_new(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._optimizers.append(optimizer)

        return init

    def _in_the_copy(self) -> list[tuple[Any, str, Around]]:
        """Calls at which a copy stops: they would take from the parent, or write beside it."""
        return [
            (_BaseDataLoaderIter, "__next__", self._stopping("the next batch was fetched before a backward")),
            (torch, "save", self._stopping("a file was written before a backward")),
            (GradScaler, "scale", self._scaled),
        ]

    def _stopping(self, reason: str) -> Around:
        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self._leave(False, reason)
                return original(*args, **kwargs)

            return call

        return around

    def _scaled(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The loss proper is what goes into a GradScaler."""

        def call(scaler: GradScaler, outputs: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(outputs, Tensor):
                self.loss_reached(outputs)
            return original(scaler, outputs, *args, **kwargs)

        return call


class _Ahead:
    """In the copy: the iteration from the model's call to the loss."""

    def __init__(self, optimizer: Optimizer, module: nn.Module, batch: Arguments, timer: threading.Timer) -> None:
        self._optimizer, self._module, self._batch, self._timer = optimizer, module, batch, timer
        self._rewind = global_generators()
        models = [getattr(root, "_orig_mod", root) for root in roots_of(module.parameters())]
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        models += [root for root in roots_of(trained) if root not in models]
        self._root = models[0] if len(models) == 1 else _together(models)
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in self._root.buffers()]
        self._tape = LiveTape(self._root, batch)

    def called(self) -> Any:
        """Call the model with the tape on; it stays on."""
        self._tape.start()
        output = self._module(*self._batch.args, **self._batch.kwargs)
        self._outputs = self._tape.refs(output)
        return output

    def trains(self, loss: Tensor) -> bool:
        """Whether the loss reaches a parameter that the optimizer holds; another optimizer's loss may come first."""
        reached = {id(leaf) for leaf in leaves_of(loss)} if loss.grad_fn is not None else set()
        return any(id(p) in reached for group in self._optimizer.param_groups for p in group["params"])

    def examined(self, loss: Tensor, examine: Callable[[Iteration], Any]) -> tuple[bool, Any]:
        """(whether the examination came to an end, what came of it)."""
        self._timer.cancel()
        try:
            iteration = self._iteration(loss, running_line())
        except BaseException as error:
            return False, _words(error)
        # OpenMP's threads of the parent did not come along, and a new thread has its own: two cores are used again.
        with ThreadPoolExecutor(1) as threads:
            outcome: tuple[bool, Any] = threads.submit(_outcome, examine, iteration).result()
            return outcome

    def _iteration(self, loss: Tensor, source: Any) -> Iteration:
        tape = self._tape.finish(loss)
        for buffer, before in self._buffers:
            buffer.data.copy_(before)
        self._rewind()
        line = Line(source.file, source.line, source.code) if source else None
        replayed = ReplayedLoss(tape.graph, self._outputs, self._module)
        return Iteration(self._root, self._batch, replayed, tape, self._optimizer, line)


def _together(models: list[nn.Module]) -> nn.Module:
    """One module that holds several, each under the name of its class."""
    holder = nn.Module()
    for model in models:
        name = type(model).__name__
        taken = sum(known.rstrip("0123456789") == name for known, _ in holder.named_children())
        holder.add_module(f"{name}{taken + 1}" if taken else name, model)
    return holder


def _outcome(examine: Callable[[Iteration], Any], iteration: Iteration) -> tuple[bool, Any]:
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return True, examine(iteration)
    except BaseException as error:
        return False, _words(error)


def _words(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()
