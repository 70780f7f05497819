"""Sees what a training loop calls and writes it down; changes nothing that the loop computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad
from torch.optim import Optimizer, lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from chainrule.capture.tape_places import running_line
from chainrule.finding import Line
from chainrule.watch.close_look import StepLook, norm, steps_open
from chainrule.watch.leaves import Leaves
from chainrule.watch.loaders import Loaders
from chainrule.watch.names import Names, held_by
from chainrule.watch.observed import Event, Kind, Observed
from chainrule.watch.pace import Pace
from chainrule.watch.patches import Around, all_patched, and_then, before
from chainrule.watch.peers import Peers

KEPT_UPDATES = 64  # events of older updates are forgotten, but those of the first and the loaders' epochs
KEPT_STEPS = 3  # of each optimizer; each holds copies of parameters, gradients and state
_LASTING: tuple[Kind, ...] = ("epoch", "save", "load")


class Observer:
    """Fills an `Observed` while its `watching` block runs.

    models      whose parameters get their paths as names; found by what the optimizer holds if there are none
    on_step     called after each step that was looked at closely, with what was observed so far
    on_update   called after every step, with the number of steps so far
    on_backward called with each loss that is about to be differentiated; True says that it has been done
    before_step called with each optimizer that is about to make a step, after_step when it has made it
    on_peers    called when other ranks of a distributed run have said something new; None: they are not looked at
    """

    def __init__(
        self,
        models: Iterable[nn.Module] = (),
        *,
        on_step: Callable[[Observed], None] = lambda _: None,
        on_update: Callable[[int], None] = lambda _: None,
        on_backward: Callable[[Tensor], bool] = lambda _: False,
        before_step: Callable[[Optimizer], None] = lambda _: None,
        after_step: Callable[[Optimizer], None] = lambda _: None,
        on_peers: Callable[[Observed], None] | None = None,
    ) -> None:
        self.observed = Observed()
        self.names = Names(models)
        self.optimizers: list[Optimizer] = []
        self._on_step, self._on_update, self._on_backward = on_step, on_update, on_backward
        self._ahead_of_step, self._behind_step = before_step, after_step
        self._loaders = Loaders(self.names, self._say)
        self.peers = Peers(
            self.observed,
            close=lambda: self.close,
            line=_line,
            news=lambda: on_peers(self.observed) if on_peers else None,
            alone=on_peers is None,
        )
        self._updates = 0
        self._pace = Pace()
        self.close = self._pace.wanted(1)  # True while the coming step is one that is looked at closely
        self._numbers: dict[int, int] = {}
        self._look: StepLook | None = None
        self._clip: tuple[float, float] | None = None
        self._scaled: set[int] = set()
        self._leaves = Leaves()
        self._stepped = False
        self._loss: float | None = None
        self._depth = 0
        self._stepping: list[int] = []

    @contextmanager
    def watching(self) -> Iterator[Observed]:
        """While the block runs, what the loop calls is written down; afterwards torch is as it was."""
        hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        try:
            with all_patched(self._patches()), self._loaders.followed(), self.peers.followed():
                yield self.observed
        finally:
            for hook in hooks:
                hook.remove()

    def _patches(self) -> list[tuple[Any, str, Around]]:
        schedulers = [kind for kind in vars(lr_scheduler).values() if isinstance(kind, type)]
        return [
            (torch.autograd, "backward", self._around_backward),
            (Optimizer, "zero_grad", before(self._zero_grad)),
            (nn.Module, "zero_grad", before(self._zero_grad)),
            (clip_grad, "_clip_grads_with_norm_", self._around_clip),
            (nn.utils, "clip_grads_with_norm_", self._around_clip),
            (clip_grad, "clip_grad_value_", and_then(self._clipped_value)),
            (nn.utils, "clip_grad_value_", and_then(self._clipped_value)),
            (GradScaler, "scale", and_then(self._scaled_loss)),
            (GradScaler, "unscale_", and_then(self._unscaled)),
            (GradScaler, "step", self._around_scaled_step),
            (nn.Module, "load_state_dict", and_then(self._loaded_model)),
            (Optimizer, "load_state_dict", and_then(self._loaded_optimizer)),
            (torch, "save", before(self._saved)),
            (torch, "load", and_then(self._loaded_file)),
            *(
                (kind, "step", self._around_schedule)
                for kind in schedulers
                if issubclass(kind, lr_scheduler.LRScheduler)
            ),
        ]

    def _say(self, kind: Kind, who: str = "", *, look_up: bool | None = None, **numbers: Any) -> None:
        where = _line() if (self.close if look_up is None else look_up) else None
        self.observed.events.append(Event(kind, self._updates, who, where, numbers))

    def _around_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(tensors: Any, *args: Any, **kwargs: Any) -> None:
            loss = tensors if isinstance(tensors, Tensor) else next(iter(tensors := tuple(tensors)), None)
            if isinstance(loss, Tensor):
                self._backward(loss, bool(kwargs.get("create_graph", len(args) > 2 and args[2])))
                if self._on_backward(loss):
                    return
            original(tensors, *args, **kwargs)

        return call

    def _backward(self, loss: Tensor, create_graph: bool) -> None:
        value = float(loss.detach()) if loss.numel() == 1 and (self.close or loss.device.type == "cpu") else None
        self._loss = value
        self._say(
            "backward",
            loss=value,
            finite=None if value is None else math.isfinite(value),
            held=norm(p.grad for o in self.optimizers for p in held_by(o)) if self.close else None,
            graph=create_graph,
            stands=None if self._updates else self._leaves.stand(loss),
            scaled=id(loss) in self._scaled,
        )
        self._scaled.clear()

    def _zero_grad(self, owner: Any, *_: Any, **__: Any) -> None:
        held = held_by(owner) if isinstance(owner, Optimizer) else owner.parameters()
        self._say("zero_grad", self.names.of(owner), cleared=norm(p.grad for p in held) if self.close else None)

    def _around_clip(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> Any:
            parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            result = original(parameters, max_norm, total_norm, *args, **kwargs)
            if self.close:
                after = norm(parameter.grad for parameter in parameters)
                self._say("clip", how="norm", max=float(max_norm), norm=float(total_norm), after=after)
            else:
                self._say("clip", how="norm", max=float(max_norm), norm=None, after=None)
            return result

        return call

    def _clipped_value(self, _: Any, __: Any, clip_value: float, *___: Any, **____: Any) -> None:
        self._say("clip", how="value", max=float(clip_value), norm=None, after=None)

    def _scaled_loss(self, result: Any, scaler: GradScaler, *_: Any) -> None:
        if scaler.is_enabled() and isinstance(result, Tensor):
            self._scaled.add(id(result))
            self._say("scale", self.names.of(scaler), scale=scaler.get_scale() if self.close else None)

    def _unscaled(self, _: Any, scaler: GradScaler, optimizer: Optimizer) -> None:
        if scaler.is_enabled():
            self._say("unscale", self.names.of(optimizer))

    def _around_scaled_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scaler: GradScaler, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            self._stepped = False
            result = original(scaler, optimizer, *args, **kwargs)
            if not self._stepped:
                self._count(optimizer, skipped=True)
            return result

        return call

    def _around_schedule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._depth += 1  # a SequentialLR steps others inside its own step
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._depth -= 1
            if self._depth == 0 and getattr(scheduler, "last_epoch", 1) > 0:  # 0: its own constructor's call
                rates = [group["lr"] for group in scheduler.optimizer.param_groups]
                self._say(
                    "schedule", self.names.of(scheduler.optimizer), rates=rates, scheduler=type(scheduler).__name__
                )
            return result

        return call

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepping.append(id(optimizer))
        if self._stepping.count(id(optimizer)) > 1:
            if steps_open(optimizer) > 1:  # a class that overrides `step` calls its parent's, with hooks again
                return
            self._stepping = [key for key in self._stepping if key != id(optimizer)] + [
                id(optimizer)
            ]  # one that raised
        self._ahead_of_step(optimizer)
        if all(optimizer is not known for known in self.optimizers):
            self.optimizers.append(optimizer)
        closure = kwargs.get("closure") or next((arg for arg in args if callable(arg) and arg is not optimizer), None)
        number = self._numbers.get(id(optimizer), 0) + 1
        if self.close and closure is None:
            with self._pace.timed():
                self._look = StepLook(optimizer, self.names.of(optimizer), number, self.names.parameters(optimizer))

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if id(optimizer) in self._stepping:
            self._stepping.remove(id(optimizer))
        if id(optimizer) in self._stepping:
            return
        self._stepped = True
        self._leaves.forget()
        self._behind_step(optimizer)
        self._count(optimizer, skipped=False)

    def _count(self, optimizer: Optimizer, *, skipped: bool) -> None:
        """A step is finished: it becomes an event, a record if it was looked at closely, and the judges may look."""
        self._numbers[id(optimizer)] = self._numbers.get(id(optimizer), 0) + 1
        if self.close:
            with self._pace.timed():
                self._looked_at(optimizer, skipped)
                self._updates += 1
                self._forget()
                self._on_step(self.observed)
        else:
            self._said_step(optimizer, skipped)
            self._updates += 1
        self.close = self._pace.wanted(self._updates + 1)
        self.peers.stepped()
        self._on_update(self._updates)

    def _looked_at(self, optimizer: Optimizer, skipped: bool) -> None:
        """The end of a step that was looked at closely: its record is kept."""
        self._said_step(optimizer, skipped)
        look, self._look = self._look, None
        if look is not None and not skipped:
            record = look.finished(self.observed.events[-1].line, self._loss)
            self.observed.steps.append(record)
            self._forget_steps()
            self.peers.looked_at(record, look.parameters, _since_last_step(self.observed.events[:-1]))
            self._pace.limited = not self.peers.ranks.several  # the ranks must look at the same steps

    def _said_step(self, optimizer: Optimizer, skipped: bool) -> None:
        gradients = [parameter.grad for parameter in held_by(optimizer)]
        self._say(
            "step",
            self.names.of(optimizer),
            rates=[float(math.nan if group.get("lr") is None else group["lr"]) for group in optimizer.param_groups],
            norm=norm(gradients) if self.close else None,
            empty=all(gradient is None for gradient in gradients),
            skipped=skipped,
        )

    def _forget_steps(self) -> None:
        """Keep the last steps of each optimizer; of a rehearsal, which is short, all."""
        if not self.observed.rehearsal:
            steps = self.observed.steps
            own = [step for step in steps if step.optimizer == steps[-1].optimizer]
            if len(own) > KEPT_STEPS:
                steps.remove(own[0])

    def _forget(self) -> None:
        oldest = self._updates - KEPT_UPDATES
        if oldest > 3:
            events = self.observed.events
            events[:] = [e for e in events if e.kind in _LASTING or e.update < 3 or e.update >= oldest]

    def _loaded_model(self, found: Any, model: nn.Module, state: Any, *_: Any, **__: Any) -> None:
        missing = list(getattr(found, "missing_keys", ()))[:1000]
        self._say("load", self.names.of(model), look_up=True, what="model", keys=len(state), missing=missing)

    def _loaded_optimizer(self, _: Any, optimizer: Optimizer, state: Any) -> None:
        self._say("load", self.names.of(optimizer), look_up=True, what="optimizer", keys=len(state.get("state", ())))

    def _saved(self, thing: Any, *_: Any, **__: Any) -> None:
        self._say("save", look_up=True, what="file", keys=_keys(thing))

    def _loaded_file(self, thing: Any, *_: Any, **__: Any) -> None:
        self._say("load", look_up=True, what="file", keys=_keys(thing))


def _line() -> Line | None:
    line = running_line()
    return Line(line.file, line.line, line.code) if line else None


def _since_last_step(events: list[Event]) -> list[Event]:
    start = next((i for i in range(len(events), 0, -1) if events[i - 1].kind == "step"), 0)
    return events[start:]


def _keys(thing: Any) -> list[str]:
    """The names in a saved dictionary, and "outer/inner" for those of dictionaries in it; the class of anything else."""
    if not isinstance(thing, dict):
        return [type(thing).__name__]
    inner = [f"{key}/{name}" for key, value in thing.items() if isinstance(value, dict) for name in value]
    return sorted([*map(str, thing), *inner])[:1000]
