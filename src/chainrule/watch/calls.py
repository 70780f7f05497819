"""The calls of a loop but for the optimizer's step: backward, zero_grad, clipping, scaling, scheduling, saving, loading."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad
from torch.optim import Optimizer, lr_scheduler

from chainrule.watch.close_look import norm
from chainrule.watch.leaves import Leaves
from chainrule.watch.names import held_by
from chainrule.watch.notes import Notes
from chainrule.watch.patches import Around, and_then, before


class Calls:
    """Notes each call that its patches meet. A norm is taken only in a step that is looked at closely.

    on_backward  called with each loss that is about to be differentiated; True says that it has been done
    """

    def __init__(self, notes: Notes, on_backward: Callable[[Tensor], bool]) -> None:
        self._notes, self._on_backward = notes, on_backward
        self._scaled: set[int] = set()
        self._leaves = Leaves()
        self._depth = 0

    def patches(self) -> list[tuple[Any, str, Around]]:
        """What stands in the place of torch's functions."""
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
        notes = self._notes
        value = float(loss.item()) if loss.numel() == 1 and (notes.close or loss.is_cpu) else None
        notes.loss = value
        stands = None
        if not notes.updates:
            stands = self._leaves.stand(loss)
        elif notes.close:
            self._leaves.forget()
        notes.say(
            "backward",
            loss=value,
            finite=None if value is None else math.isfinite(value),
            held=norm(p.grad for o in notes.optimizers for p in held_by(o)) if notes.close else None,
            graph=create_graph,
            stands=stands,
            scaled=id(loss) in self._scaled,
        )
        self._scaled.clear()

    def _zero_grad(self, owner: Any, *_: Any, **__: Any) -> None:
        cleared = None
        if self._notes.close:
            held = held_by(owner) if isinstance(owner, Optimizer) else owner.parameters()
            cleared = norm(parameter.grad for parameter in held)
        self._notes.say("zero_grad", self._notes.names.of(owner), cleared=cleared)

    def _around_clip(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(parameters: Any, max_norm: float, total_norm: Tensor, *args: Any, **kwargs: Any) -> Any:
            total = after = None
            if not self._notes.close:
                result = original(parameters, max_norm, total_norm, *args, **kwargs)
            else:
                parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
                result = original(parameters, max_norm, total_norm, *args, **kwargs)
                total, after = float(total_norm), norm(parameter.grad for parameter in parameters)
            self._notes.say("clip", how="norm", max=float(max_norm), norm=total, after=after)
            return result

        return call

    def _clipped_value(self, _: Any, __: Any, clip_value: float, *___: Any, **____: Any) -> None:
        self._notes.say("clip", how="value", max=float(clip_value), norm=None, after=None)

    def _scaled_loss(self, result: Any, scaler: GradScaler, *_: Any) -> None:
        if scaler.is_enabled() and isinstance(result, Tensor):
            self._scaled.add(id(result))
            scale = scaler.get_scale() if self._notes.close else None
            self._notes.say("scale", self._notes.names.of(scaler), scale=scale)

    def _unscaled(self, _: Any, scaler: GradScaler, optimizer: Optimizer) -> None:
        if scaler.is_enabled():
            self._notes.say("unscale", self._notes.names.of(optimizer))

    def _around_schedule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._depth += 1  # a SequentialLR steps others inside its own step
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._depth -= 1
            if self._depth == 0 and getattr(scheduler, "last_epoch", 1) > 0:  # 0: its own constructor's call
                self._scheduled(scheduler)
            return result

        return call

    def _scheduled(self, scheduler: Any) -> None:
        rates = [group["lr"] for group in scheduler.optimizer.param_groups]
        who = self._notes.names.of(scheduler.optimizer)
        self._notes.say("schedule", who, rates=rates, scheduler=type(scheduler).__name__)

    def _loaded_model(self, found: Any, model: nn.Module, state: Any, *_: Any, **__: Any) -> None:
        missing = list(getattr(found, "missing_keys", ()))[:1000]
        who = self._notes.names.of(model)
        self._notes.say("load", who, look_up=True, what="model", keys=len(state), missing=missing)

    def _loaded_optimizer(self, _: Any, optimizer: Optimizer, state: Any) -> None:
        who = self._notes.names.of(optimizer)
        self._notes.say("load", who, look_up=True, what="optimizer", keys=len(state.get("state", ())))

    def _saved(self, thing: Any, *_: Any, **__: Any) -> None:
        self._notes.say("save", look_up=True, what="file", keys=_keys(thing))

    def _loaded_file(self, thing: Any, *_: Any, **__: Any) -> None:
        self._notes.say("load", look_up=True, what="file", keys=_keys(thing))


def _keys(thing: Any) -> list[str]:
    """The names in a saved dictionary, and "outer/inner" for those of dictionaries in it; the class of anything else."""
    if not isinstance(thing, dict):
        return [type(thing).__name__]
    inner = [f"{key}/{name}" for key, value in thing.items() if isinstance(value, dict) for name in value]
    return sorted([*map(str, thing), *inner])[:1000]
