"""Handles every operation of the user's run: executes it as eager PyTorch would, and writes it down as nodes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.lowering import Step
from chainrule.capture.nodes import is_random
from chainrule.capture.tape_adjoints import feeding_others
from chainrule.capture.tape_calls import (
    COMPOSITE,
    Arguments,
    Calls,
    active_autocast,
    casts_inside,
    has_kernel,
    is_taken_apart,
    tensors_in,
)
from chainrule.capture.tape_draws import refuse
from chainrule.capture.tape_inputs import StandIns
from chainrule.capture.tape_places import running_line
from chainrule.capture.tape_state import State
from chainrule.capture.tape_writes import execute, has_side_effect
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Ref, bind_arguments, schema_defaults

aten = torch.ops.aten
# Memory that is not initialised holds what was there before, and no run that depends on it can be repeated: zeroed.
_ZEROED = {
    aten.empty.memory_format: aten.zeros.default,
    aten.empty_like.default: aten.zeros_like.default,
    aten.new_empty.default: aten.new_zeros.default,
}
# What C++ calls where export writes the other: the same formula under another name.
_OTHER_NAME = {
    aten._reshape_alias.default: aten.view.default,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    **_ZEROED,
}


class Recorder:
    """Records one run; `calls.on()` while it lasts."""

    def __init__(self, state: State, stand_ins: StandIns) -> None:
        self.state, self.stand_ins = state, stand_ins
        self.calls = Calls(self._handle)
        self._hides_cast: dict[OpOverload, bool] = {}

    def _handle(self, op: Any, args: Arguments, kwargs: dict[str, Any]) -> Any:
        if not isinstance(op, OpOverload):
            raise CaptureError(f"{running_line()}: {op} is no single tensor operation and cannot be recorded")
        if torch._C._are_functorch_transforms_active():
            return op(*args, **kwargs)  # what comes out of the transform is judged where it is used
        args, kwargs = self.stand_ins.adapted(op, args, kwargs, self.state.memory)
        with nullcontext() if self.stand_ins.dtype is None else torch._C._DisableAutocast():
            return self._whole_or_by_parts(op, args, kwargs)

    def _whole_or_by_parts(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        autocast = active_autocast((args, kwargs))
        if autocast is not None and has_kernel(op, autocast):
            return self.calls.parts(op, autocast, args, kwargs)
        with self.state.draws.around(op, args, kwargs) as (args, kwargs):
            if (
                is_taken_apart(op)
                or _writes_unseen(op, args, kwargs)
                or self.state.draws.inside(op, args, kwargs)
                or self._casts_inside(op, autocast, args, kwargs)
            ):
                return self.calls.parts(op, COMPOSITE, args, kwargs)
            return self._record(op, args, kwargs)

    def _casts_inside(self, op: OpOverload, autocast: Any, args: Arguments, kwargs: dict[str, Any]) -> bool:
        if autocast is None or not has_kernel(op, COMPOSITE):
            return False
        if op not in self._hides_cast:
            self._hides_cast[op] = casts_inside(op, autocast, args, kwargs)
        return self._hides_cast[op]

    def _record(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        if self.state.draws.makes_mask(op, (args, kwargs)):
            return self.state.draws.made(op(*args, **kwargs))
        if op is aten.rrelu_with_noise.default:
            return self._rrelu(op, args, kwargs)
        if has_side_effect(op):
            return execute(self.state, op, args, kwargs)
        output = op(*args, **kwargs)
        bound = bind_arguments(op, args, kwargs)
        if next(tensors_in(output), None) is None or any(output is tensor for tensor in tensors_in(bound)):
            return output
        if op in _ZEROED:
            output.zero_()
        self._write_down(op, bound, output)
        return output

    def _rrelu(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Randomised leaky ReLU, which in eval mode is leaky ReLU with the mean slope."""
        bound = bind_arguments(op, args, kwargs)
        if bound["training"]:
            refuse(op)
        output = op(*args, **kwargs)
        slope = (bound["lower"] + bound["upper"]) / 2
        self._write_down(aten.leaky_relu.default, {"self": bound["self"], "negative_slope": slope}, output)
        return output

    def _write_down(self, op: OpOverload, bound: dict[str, Any], output: Any) -> None:
        """An operation without side effect, and where its output stands in memory."""
        state = self.state
        if op is aten.detach.default:
            self._detached(output, bound["self"])
        elif op is aten.native_dropout.default:
            state.draws.fused_dropout(bound, state.use(bound["input"]), output)
        elif is_random(op):
            state.memory.add(output, state.draws.leaf(op, state.arguments(bound), output))
        else:
            formula = _OTHER_NAME.get(op, op)
            arguments = state.arguments({name: bound[name] for name, _ in schema_defaults(formula)})
            ref = state.node(formula, arguments, tuple(output) if isinstance(output, list) else output)
            if isinstance(output, Tensor):
                self._place(output, ref, bound, formula, arguments)
            else:
                self._place_each(output, ref, bound, op, arguments)

    def _detached(self, output: Tensor, tensor: Tensor) -> None:
        """Inside a custom Function everything is detached in any case; `detach` says nothing about what it computes."""
        memory = self.state.memory
        if self.state.grad_outside is None:
            memory.add_detached(output, tensor)
        else:
            memory.add(output, memory.ref(tensor), parent=memory.find(tensor))

    def _place_each(
        self, outputs: Any, ref: Ref, bound: Mapping[str, Any], op: OpOverload, arguments: Mapping[str, Argument]
    ) -> None:
        if has_kernel(op, COMPOSITE):
            inner = feeding_others(outputs, list(tensors_in(dict(bound))))
            self.state.memory.hide(Ref(ref.name, index) for index in inner)
        for index, output in enumerate(outputs):
            if isinstance(output, Tensor) and self.state.memory.find(output) is None:
                self._place(output, Ref(ref.name, index), bound, op, arguments)

    def _place(
        self, output: Tensor, ref: Ref, bound: Mapping[str, Any], op: OpOverload, arguments: Mapping[str, Argument]
    ) -> None:
        """Say what memory an output stands in: its own, or that of an argument of which it is a view."""
        parent = self.state.memory.relative(output, list(tensors_in(dict(bound))))
        if parent is None:
            self.state.memory.add(output, ref)
            return
        of = next((name for name, value in bound.items() if value is parent.tensor), "")
        step = Step(op, arguments, of, ref.index, tuple(parent.tensor.shape))
        self.state.memory.add(output, ref, parent=parent, step=step)


def _writes_unseen(op: OpOverload, args: Arguments, kwargs: Mapping[str, Any]) -> bool:
    """True for a composite operation that writes to running statistics, though its schema does not say so."""
    return op is aten.instance_norm.default and bind_arguments(op, args, kwargs)["running_mean"] is not None
