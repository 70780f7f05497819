"""The optimizers' steps of a loop: each is counted and noted, and looked at closely where that is its turn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from chainrule.watch.close_look import StepLook, norm, steps_open
from chainrule.watch.names import held_by
from chainrule.watch.notes import Notes
from chainrule.watch.observed import Event, Kind
from chainrule.watch.patches import all_patched
from chainrule.watch.peers import Peers

KEPT_UPDATES = 64  # events of older updates are forgotten, but those of the first and the loaders' epochs
FORGETTING = 4096  # steps between two times that events are forgotten where no close look does so: 1.4 kB each
KEPT_STEPS = 3  # of each optimizer; each holds copies of parameters, gradients and state
_LASTING: tuple[Kind, ...] = ("epoch", "save", "load")


class Steps:
    """Notes each step of any optimizer while its `followed` block runs.

    before, after   called with each optimizer that is about to make a step, and that has made it
    looked          called after each step that was looked at closely, when it has been written down
    counted         called after every step with the number of all steps so far
    """

    def __init__(
        self,
        notes: Notes,
        peers: Peers,
        *,
        before: Callable[[Optimizer], None],
        after: Callable[[Optimizer], None],
        looked: Callable[[], None],
        counted: Callable[[int], None],
    ) -> None:
        self._notes, self._peers = notes, peers
        self._ahead, self._behind, self._looked, self._counted = before, after, looked, counted
        self._numbers: Counter[int] = Counter()  # id of an optimizer -> its steps so far
        self._look: StepLook | None = None
        self._stepped = False
        self._open: list[int] = []  # ids of the optimizers whose step is running, once for each call

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        hooks = [register_optimizer_step_pre_hook(self._before), register_optimizer_step_post_hook(self._after)]
        try:
            with all_patched([(GradScaler, "step", self._around_scaled)]):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _around_scaled(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            self._stepped = False
            result = original(scaler, optimizer, *args, **kwargs)
            if not self._stepped:
                self._count(optimizer, skipped=True)
            return result

        return call

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        key = id(optimizer)
        if key in self._open:
            if steps_open(optimizer) > 1:  # a class that overrides `step` calls its parent's, with hooks again
                self._open.append(key)
                return
            self._open = [other for other in self._open if other != key]  # left of a step that raised
        self._open.append(key)
        self._ahead(optimizer)
        if optimizer not in self._notes.optimizers:
            self._notes.optimizers.append(optimizer)
        if self._notes.close:
            self._begin_look(optimizer, args, kwargs)

    def _begin_look(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Copy what the step begins with; a step with a closure computes its gradients itself, so nothing is known yet."""
        if kwargs.get("closure") or any(callable(arg) and arg is not optimizer for arg in args):
            return
        names, number = self._notes.names, self._numbers[id(optimizer)] + 1
        with self._notes.pace.timed():
            self._look = StepLook(optimizer, names.of(optimizer), number, names.parameters(optimizer))

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        key = id(optimizer)
        if key in self._open:
            self._open.remove(key)
        if key in self._open:
            return
        self._stepped = True
        self._behind(optimizer)
        self._count(optimizer, skipped=False)

    def _count(self, optimizer: Optimizer, *, skipped: bool) -> None:
        """A step is finished: it becomes an event, a record if it was looked at closely, and the judges may look."""
        notes = self._notes
        self._numbers[id(optimizer)] += 1
        if notes.close:
            with notes.pace.timed():
                self._end_look(optimizer, skipped)
                notes.updates += 1
                self._forget_events()
                self._looked()
        else:
            self._say(optimizer, skipped)
            notes.updates += 1
            if notes.updates % FORGETTING == 0:
                self._forget_events()
        notes.close = notes.pace.wanted(notes.updates + 1)
        self._peers.stepped()
        self._counted(notes.updates)

    def _end_look(self, optimizer: Optimizer, skipped: bool) -> None:
        """The end of a step that was looked at closely: its record is kept."""
        self._say(optimizer, skipped)
        look, self._look = self._look, None
        if look is not None and not skipped:
            observed = self._notes.observed
            record = look.finished(observed.events[-1].line, self._notes.loss)
            observed.steps.append(record)
            self._forget_records()
            self._peers.looked_at(record, look.parameters, _since_last_step(observed.events[:-1]))
            self._notes.pace.limited = not self._peers.ranks.several  # the ranks must look at the same steps

    def _say(self, optimizer: Optimizer, skipped: bool) -> None:
        self._notes.say(
            "step",
            self._notes.names.of(optimizer),
            rates=[float(math.nan if group.get("lr") is None else group["lr"]) for group in optimizer.param_groups],
            norm=norm(parameter.grad for parameter in held_by(optimizer)) if self._notes.close else None,
            empty=_empty(optimizer),
            skipped=skipped,
        )

    def _forget_records(self) -> None:
        """Keep the last steps of each optimizer; of a rehearsal, which is short, all."""
        if not self._notes.observed.rehearsal:
            steps = self._notes.observed.steps
            own = [step for step in steps if step.optimizer == steps[-1].optimizer]
            if len(own) > KEPT_STEPS:
                steps.remove(own[0])

    def _forget_events(self) -> None:
        oldest = self._notes.updates - KEPT_UPDATES
        if oldest > 3:
            events = self._notes.observed.events
            events[:] = [e for e in events if e.kind in _LASTING or e.update < 3 or e.update >= oldest]


def _empty(optimizer: Optimizer) -> bool:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                return False
    return True


def _since_last_step(events: list[Event]) -> list[Event]:
    start = next((i for i in range(len(events), 0, -1) if events[i - 1].kind == "step"), 0)
    return events[start:]
