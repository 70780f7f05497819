"""Writes down each operation of the user's run as nodes of the graph, at the moment at which it is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.draws import is_random
from chainrule.capture.lowering import Step, functional, written_arguments
from chainrule.capture.running import resolve
from chainrule.capture.tape_adjoints import Adjoints, feeding_others
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_calls import (
    COMPOSITE,
    Arguments,
    Calls,
    active_autocast,
    casts_inside,
    has_kernel,
    is_taken_apart,
    tensors_in,
    with_each_tensor,
)
from chainrule.capture.tape_draws import Draws
from chainrule.capture.tape_inputs import StandIns
from chainrule.capture.tape_memory import Memory
from chainrule.capture.tape_places import running_line
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Ref, bind_arguments, schema_defaults

aten = torch.ops.aten
# Each with its own names of momentum and epsilon.
_BATCH_NORMS = {
    aten.native_batch_norm.default: ("momentum", "eps"),
    aten.cudnn_batch_norm.default: ("exponential_average_factor", "epsilon"),
    aten.miopen_batch_norm.default: ("exponential_average_factor", "epsilon"),
}
# Memory that is not initialised holds what was there before; no run that depends on it can be repeated, so it is zeroed.
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
}
_UNFOLLOWED = (aten.set_, aten.resize_, aten.resize_as_)


class Recorder:
    """Handles every operation of the run: executes it, and writes it down.

    grad_outside  whether autograd was on around the custom Function that is running; None if none is
    """

    def __init__(self, book: Book, memory: Memory, adjoints: Adjoints, stand_ins: StandIns) -> None:
        self.book, self.memory, self.adjoints, self.stand_ins = book, memory, adjoints, stand_ins
        self.draws = Draws(book, memory)
        self.calls = Calls(self.handle)
        self.grad_outside: bool | None = None
        self._detached: dict[Ref, Ref] = {}
        self._casts_inside: dict[OpOverload, bool] = {}

    @property
    def cutting(self) -> bool:
        """True where the user has autograd off: what is computed there is cut from the trainable leaves.

        The forward of a custom Function runs with autograd off in any case; there it is what the user set around it.
        """
        return not (torch.is_grad_enabled() if self.grad_outside is None else self.grad_outside)

    def handle(self, op: Any, args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Execute one operation as eager PyTorch would, and write it down: whole, or by its parts."""
        if not isinstance(op, OpOverload):
            raise CaptureError(f"{running_line()}: {op} is no single tensor operation and cannot be recorded")
        if torch._C._are_functorch_transforms_active():
            return op(*args, **kwargs)  # what comes out of the transform is judged where it is used
        args, kwargs = self.stand_ins.adapted(op, args, kwargs, self.memory)
        with nullcontext() if self.stand_ins.dtype is None else torch._C._DisableAutocast():
            return self._handle(op, args, kwargs)

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
        """The value that the tensor holds, as an operation that runs now may use it: cut off if it comes from no_grad."""
        self.draws.settle(tensor)
        ref = self.memory.ref(tensor)
        if self.book.flow.get(ref.name) != "cut" or self.cutting:
            return ref
        if ref not in self._detached:
            self._detached[ref] = self.book.node(aten.detach.default, {"self": ref}, self.book.value(ref))
        return self._detached[ref]

    def _handle(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        autocast = active_autocast((args, kwargs))
        if autocast is not None and has_kernel(op, autocast):
            return self.calls.parts(op, autocast, args, kwargs)
        with self.draws.around(op, args, kwargs) as (args, kwargs):
            if is_taken_apart(op) or self.draws.inside(op, args, kwargs) or self._hides_cast(op, autocast, args, kwargs):
                return self.calls.parts(op, COMPOSITE, args, kwargs)
            return self._record(op, args, kwargs)

    def _hides_cast(self, op: OpOverload, autocast: Any, args: Arguments, kwargs: dict[str, Any]) -> bool:
        if autocast is None or not has_kernel(op, COMPOSITE):
            return False
        if op not in self._casts_inside:
            self._casts_inside[op] = casts_inside(op, autocast, args, kwargs)
        return self._casts_inside[op]

    def _record(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        if self.draws.makes_mask(op, (args, kwargs)):
            return self.draws.made(op(*args, **kwargs))
        if op in _ZEROED:
            return self._zeroed(op, args, kwargs)
        bound = bind_arguments(op, args, kwargs)
        if op in _BATCH_NORMS:
            return self._batch_norm(op, bound)
        if op.overloadpacket in _UNFOLLOWED:
            raise CaptureError(f"{running_line()}: {op} replaces a tensor's memory. Make a new tensor instead")
        if torch.Tag.inplace_view in op.tags:
            return self._reshape_in_place(op, bound, args, kwargs)
        if written_arguments(op):
            return self._write(op, bound, args, kwargs)
        return self._compute(op, bound, args, kwargs)

    def _compute(self, op: OpOverload, bound: dict[str, Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """An operation without side effect."""
        inputs = list(tensors_in(bound))
        output = op(*args, **kwargs)
        if next(tensors_in(output), None) is None or any(output is tensor for tensor in inputs):
            return output
        if op is aten.detach.default:
            return self._detach(output, bound["self"])
        if op is aten.native_dropout.default:
            self.draws.fused_dropout(bound, self.use(bound["input"]), output)
            return output
        if is_random(op):
            self.memory.add(output, self.draws.leaf(op, self._arguments(bound), output))
            return output
        arguments = self._arguments(bound)
        if op in _OTHER_NAME:
            op = _OTHER_NAME[op]
            arguments = {name: arguments[name] for name, _ in schema_defaults(op)}
        ref = self._node(op, arguments, _tidy(output))
        if isinstance(output, Tensor):
            self._add(output, ref, bound, op, arguments)
        else:
            if has_kernel(op, COMPOSITE):
                self.memory.hide(Ref(ref.name, index) for index in feeding_others(output, inputs))
            for index, item in enumerate(output):
                if isinstance(item, Tensor) and self.memory.find(item) is None:
                    self._add(item, Ref(ref.name, index), bound, op, arguments)
        return output

    def _add(
        self, output: Tensor, ref: Ref, bound: Mapping[str, Any], op: OpOverload, arguments: Mapping[str, Argument]
    ) -> None:
        parent = self.memory.relative(output, list(tensors_in(dict(bound))))
        if parent is None:
            self.memory.add(output, ref)
            return
        of = next((name for name, value in bound.items() if value is parent.tensor), "")
        step = Step(op, arguments, of, ref.index, tuple(parent.tensor.shape))
        self.memory.add(output, ref, parent=parent, step=step)

    def _node(self, op: OpOverload, arguments: Mapping[str, Argument], value: Any) -> Ref:
        """A node of the run. Outside custom Functions autograd itself says whether a gradient flows to it."""
        if self.cutting or self.grad_outside is not None:
            return self.book.node(op, arguments, value, cutting=self.cutting)
        return self.book.node(op, arguments, value, requires_grad=any(t.requires_grad for t in tensors_in(value)))

    def _detach(self, output: Tensor, tensor: Tensor) -> Tensor:
        """Inside a custom Function everything is detached in any case, and `detach` says nothing about what it computes."""
        if self.grad_outside is None:
            self.memory.add_detached(output, tensor)
        else:
            self.memory.add(output, self.memory.ref(tensor), parent=self.memory.find(tensor))
        return output

    def _write(self, op: OpOverload, bound: dict[str, Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """An in-place or `out=` operation: a new value for what it writes to."""
        targets = [tensor for name in written_arguments(op) for tensor in tensors_in(bound[name])]
        if not targets:
            return op(*args, **kwargs)
        formula = functional(op)
        if formula is None:
            raise CaptureError(f"{running_line()}: {op} writes in place and has no form without side effect in torch")
        before = {id(target): self.memory.before_write(target) for target in targets}
        arguments = {
            name: with_each_tensor(bound[name], lambda t: before[id(t)][-1] if id(t) in before else self._argument(t))
            for name, _ in schema_defaults(formula)
        }
        output = op(*args, **kwargs)
        value = targets[0] if len(targets) == 1 and len(formula._schema.returns) == 1 else tuple(targets)
        if is_random(op):
            ref = self.draws.leaf(formula, arguments, targets[0])
        else:
            ref = self._formula(formula, arguments, value)
        for index, target in enumerate(targets):
            changed = ref if isinstance(value, Tensor) else Ref(ref.name, index)
            self.memory.write(target, changed, before[id(target)], silent=self.cutting)
        return output

    def _formula(self, op: OpOverload, arguments: dict[str, Argument], value: Any) -> Ref:
        """The node of an in-place operation, and a cast where it would promote: int += float stays int."""
        if isinstance(value, Tensor):
            dtypes = {tensor.dtype for tensor in tensors_in([resolve(a, self.book.values) for a in arguments.values()])}
            if dtypes - {value.dtype}:
                with torch.no_grad():
                    promoted = op(**{name: resolve(a, self.book.values) for name, a in arguments.items()})
                if promoted.dtype != value.dtype:
                    ref = self.book.node(op, arguments, promoted, cutting=self.cutting)
                    cast = bind_arguments(aten._to_copy.default, (ref,), {"dtype": value.dtype})
                    return self._node(aten._to_copy.default, cast, value)
        return self._node(op, arguments, value)

    def _reshape_in_place(self, op: OpOverload, bound: dict[str, Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """transpose_, unsqueeze_, detach_: the same memory seen in another way."""
        tensor, formula = bound["self"], functional(op)
        if formula is None:
            raise CaptureError(f"{running_line()}: {op} cannot be recorded")
        before, arguments = tensor.detach(), self._arguments(bound)
        output = op(*args, **kwargs)
        if formula is aten.detach.default:
            self.memory.detach_in_place(tensor)
        else:
            ref = self._node(formula, arguments, tensor)
            self.memory.reshape(tensor, ref, Step(formula, arguments, "self", None, tuple(before.shape)), before)
        return output

    def _zeroed(self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
        formula = _ZEROED[op]
        if op is aten.empty.memory_format and kwargs.pop("memory_format", None) not in (None, torch.contiguous_format):
            raise CaptureError(f"{running_line()}: torch.empty in this memory format cannot be recorded; use torch.zeros")
        return self._compute(formula, bind_arguments(formula, args, kwargs), args, kwargs)

    def _batch_norm(self, op: OpOverload, bound: dict[str, Any]) -> Any:
        """Batch norm, whose schema does not say that it writes to the running statistics."""
        momentum, eps = (bound[name] for name in _BATCH_NORMS[op])
        arguments = {name: self._argument(bound[name]) for name in ("input", "weight", "bias")}
        running = [bound["running_mean"], bound["running_var"]]
        written = [tensor for tensor in running if tensor is not None and bound["training"]]
        statistics = {name: self._argument(bound[name]) for name in ("running_mean", "running_var")}
        before = [self.memory.before_write(tensor) for tensor in written]
        output = op(**bound)
        rest = {"momentum": momentum, "eps": eps}
        if not bound["training"]:
            formula, value = aten._native_batch_norm_legit_no_training.default, tuple(output[:3])
            arguments = {**arguments, **statistics, **rest}
        elif written:
            formula, value = aten._native_batch_norm_legit_functional.default, (*output[:3], *written)
            arguments = {**arguments, **statistics, "training": True, **rest}
        else:
            formula, value = aten._native_batch_norm_legit.no_stats, tuple(output[:3])
            arguments = {**arguments, "training": True, **rest}
        ref = self._node(formula, arguments, value)
        for index, tensor in enumerate(output[:3]):
            self.memory.add(tensor, Ref(ref.name, index))
        for index, tensor in enumerate(written):
            self.memory.write(tensor, Ref(ref.name, 3 + index), before[index], silent=self.cutting)
        return output

    def _arguments(self, bound: Mapping[str, Any]) -> dict[str, Argument]:
        return {name: self._argument(value) for name, value in bound.items()}

    def _argument(self, value: Any) -> Argument:
        if isinstance(value, torch.Generator):
            return None  # the user's own; nothing is drawn from it again
        return with_each_tensor(value, self.use)


def _tidy(output: Any) -> Any:
    return tuple(output) if isinstance(output, list) else output
