"""The preflight of a running program: a copy of the process goes ahead, records the first iteration, and is examined.

At the first call of a model that an optimizer trains, the process forks. The child switches the tape on and lets the
program run to its first backward, and on, without the tape, to the step that uses it, which says whose loss it was. There
it stops, is examined, and sends what was found. The parent waits, and then makes the very same call with nothing switched
on: whatever the examination did, the program cannot tell.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from chainrule.capture.tape_adjoints import leaves_of
from chainrule.capture.tape_live import Arguments
from chainrule.watch.ahead import Ahead, Iteration
from chainrule.watch.fork import WorkFailedError, be_quiet, fork, received, said_by, send_and_exit, speak, why_not
from chainrule.watch.names import held_by, unreplicated
from chainrule.watch.patches import all_patched
from chainrule.watch.stops import Stops

PATIENCE = 120.0  # seconds from the model's call to the loss, after which the copy gives up
MOST = 3  # preflights of one program: one for each optimizer that trains something of its own


class Scout:
    """Sends copies ahead while its `armed` block runs.

    examine  what the child does with an iteration, given a function by which to say something meanwhile; its result must be
             picklable
    hear     what the parent does with what the child says meanwhile
    tell     what the parent does with that result
    give_up  what the parent does with the reason why there is no result
    elsewhere   whether another process of the same run sends the copies ahead
    batches  what the program's loaders gave last
    """

    def __init__(
        self,
        examine: Callable[[Iteration, Callable[[str], None]], Any],
        hear: Callable[[str], None],
        tell: Callable[[Any], None],
        give_up: Callable[[str], None],
        elsewhere: Callable[[], bool] = lambda: False,
        batches: Callable[[], tuple[Any, ...]] = tuple,
    ) -> None:
        self._examine, self._hear, self._tell, self._give_up = examine, hear, tell, give_up
        self._elsewhere, self._batches = elsewhere, batches
        self._optimizers: list[Optimizer] = []
        self._examined: set[int] = set()  # optimizers
        self._stepping: Optimizer | None = None
        self._waiting = 0  # the optimizer whose model was called
        self._sent = 0
        self._inlet = -1  # of the pipe to the parent, in a child
        self._ahead: Ahead | None = None
        self._call: Callable[..., Any] = nn.Module.__call__

    @contextmanager
    def armed(self) -> Iterator[None]:
        """While the block runs, the first calls of models that are trained are scouted."""
        self._optimizers = [thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer)]
        stops = Stops(lambda: self.is_copy, self._stop, self.loss_reached)
        with all_patched([(Optimizer, "__init__", self._around_new), *stops.patches()]):
            self._arm()
            try:
                yield
            except BaseException as error:
                self.ended(error)
                raise
            finally:
                self.ended()
                self._disarm()

    def ended(self, error: BaseException | None = None) -> None:
        """The program has ended, or raised: in the copy, the end of the way."""
        if self.is_copy:  # if it fails in the parent too, that is where it says so
            raised = f"the program raised {type(error).__name__}: {error}"
            self._stop(raised if error else "the program ended before a loss was differentiated")

    @property
    def is_copy(self) -> bool:
        """True in the copy that went ahead."""
        return self._inlet >= 0

    def loss_reached(self, loss: Tensor) -> bool:
        """The program is about to differentiate its loss: in the copy the tape ends; with a second loss, so does the way.

        True if that differentiated it, so that the program need not.
        """
        ahead = self._ahead
        if not self.is_copy or ahead is None:
            return False
        if not self._is_new(loss):  # with no gradients its optimizer changes nothing; the copy goes on to the next loss
            return True
        if ahead.iteration is not None:
            self._stop("")
        self._ahead = None  # the tape differentiates the loss too
        try:
            ahead.finish(loss)
        except BaseException as error:
            self._leave(False, said_by(error))
        self._ahead = ahead
        if self._stepping is not None:  # the loss was computed inside the step, by its closure
            self.step_reached(self._stepping)
        return True

    def step_done(self, _: Optimizer) -> None:
        """The program has made an optimizer's step."""
        self._stepping = None

    def _is_new(self, loss: Tensor) -> bool:
        """Whether the loss reaches something that an optimizer trains which was not examined yet, or that none holds."""
        reached = {id(leaf) for leaf in leaves_of(loss)} if loss.grad_fn is not None else set()
        known = [optimizer for optimizer in self._optimizers if id(optimizer) in self._examined - {self._waiting}]
        return bool(reached - {id(p) for optimizer in known for p in held_by(optimizer)})

    def step_reached(self, optimizer: Optimizer) -> None:
        """The program is about to make an optimizer's step: in the copy, the end of the way."""
        self._stepping = optimizer
        if self.is_copy and self._ahead is not None and self._ahead.iteration is not None:
            self._ahead.optimizer = optimizer
            self._stop("")

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
        return next((o for o in waiting if any(id(p) in own for p in held_by(o))), None)

    def _at(self, optimizer: Optimizer, module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._examined.add(id(optimizer))
        self._waiting = id(optimizer)
        self._sent += 1
        if self._elsewhere():
            return module(*args, **kwargs)
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
            examined, result = received(outlet, child, self._hear)
            self._examined = (self._examined - {id(optimizer)}) | examined
            self._tell(result)
        except WorkFailedError as error:
            self._give_up(str(error))
        except KeyboardInterrupt:
            self._give_up("it was interrupted")
            raise
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
            called = unreplicated(module)
            self._ahead = Ahead(optimizer, self._optimizers, called, Arguments(args, kwargs), timer, self._batches())
            return self._ahead.called()
        except BaseException as error:
            self._leave(False, said_by(error))

    def _stop(self, reason: str) -> None:
        """In the copy: nothing more is run of the program; what was recorded is examined, if a loss was reached."""
        ahead, self._ahead = self._ahead, None  # the examination differentiates and steps too
        if ahead is not None and ahead.iteration is not None:
            say = partial(speak, inlet=self._inlet)
            good, result = ahead.examined(lambda iteration: self._examine(iteration, say))
            self._leave(good, ({id(optimizer) for optimizer in ahead.together}, result) if good else result)
        elif ahead is not None:
            self._leave(False, reason)

    def _leave(self, good: bool, result: Any) -> None:
        inlet, self._inlet = self._inlet, -1
        if inlet >= 0:
            send_and_exit(good, result, inlet)

    def _around_new(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._optimizers.append(optimizer)

        return init
