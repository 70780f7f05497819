"""Operations with side effects on the tape: what they write to takes a new value, computed by a formula without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.lowering import Step, functional, written_arguments
from chainrule.capture.nodes import is_random
from chainrule.capture.running import resolve
from chainrule.capture.tape_calls import Arguments, tensors_in
from chainrule.capture.tape_places import running_line
from chainrule.capture.tape_state import State
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Ref, bind_arguments, schema_defaults

aten = torch.ops.aten
# Each with its own names of momentum and epsilon.
BATCH_NORMS = {
    aten.native_batch_norm.default: ("momentum", "eps"),
    aten.cudnn_batch_norm.default: ("exponential_average_factor", "epsilon"),
    aten.miopen_batch_norm.default: ("exponential_average_factor", "epsilon"),
}
_UNFOLLOWED = frozenset({aten.set_, aten.resize_, aten.resize_as_})


def has_side_effect(op: OpOverload) -> bool:
    """True if the operation writes to an argument; batch norm does, though its schema does not say so."""
    return op in BATCH_NORMS or bool(written_arguments(op))


def execute(state: State, op: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> Any:
    """Execute an operation with a side effect, and write it down. Raises CaptureError where that cannot be."""
    bound = bind_arguments(op, args, kwargs)
    if op.overloadpacket in _UNFOLLOWED:
        raise CaptureError(f"{running_line()}: {op} replaces a tensor's memory. Make a new tensor instead")
    if op in BATCH_NORMS:
        return _batch_norm(state, op, bound)
    targets = [tensor for name in written_arguments(op) for tensor in tensors_in(bound[name])]
    if not targets:
        return op(*args, **kwargs)
    formula = functional(op)
    if formula is None:
        raise CaptureError(f"{running_line()}: {op} writes in place and has no form without side effect in torch")
    if torch.Tag.inplace_view in op.tags:
        return _reshape(state, op, formula, bound, args, kwargs)
    return _write(state, op, formula, targets, bound, args, kwargs)


def _write(
    state: State,
    op: OpOverload,
    formula: OpOverload,
    targets: list[Tensor],
    bound: dict[str, Any],
    args: Arguments,
    kwargs: dict[str, Any],
) -> Any:
    """An in-place or `out=` operation."""
    before = {id(target): state.memory.before_write(target) for target in targets}

    arguments = {
        name: before[id(bound[name])][-1] if id(bound[name]) in before else state.argument(bound[name])
        for name, _ in schema_defaults(formula)
    }
    output = op(*args, **kwargs)
    value = targets[0] if len(targets) == 1 and len(formula._schema.returns) == 1 else tuple(targets)
    drawn = is_random(op)
    ref = state.draws.leaf(formula, arguments, targets[0]) if drawn else _computed(state, formula, arguments, value)
    for index, target in enumerate(targets):
        changed = ref if isinstance(value, Tensor) else Ref(ref.name, index)
        state.memory.write(target, changed, before[id(target)], silent=state.cutting)
    return output


def _computed(state: State, op: OpOverload, arguments: dict[str, Argument], value: Any) -> Ref:
    """The node of an in-place operation, and a cast where it would promote: int += float stays int."""
    values = {name: resolve(argument, state.book.values) for name, argument in arguments.items()}
    if isinstance(value, Tensor) and {tensor.dtype for tensor in tensors_in(values)} - {value.dtype}:
        with torch.no_grad():
            promoted = op(**values)
        if promoted.dtype != value.dtype:
            ref = state.book.node(op, arguments, promoted, cutting=state.cutting)
            return state.node(
                aten._to_copy.default, bind_arguments(aten._to_copy.default, (ref,), {"dtype": value.dtype}), value
            )
    return state.node(op, arguments, value)


def _reshape(
    state: State, op: OpOverload, formula: OpOverload, bound: dict[str, Any], args: Arguments, kwargs: dict[str, Any]
) -> Any:
    """transpose_, unsqueeze_, detach_: the same memory seen in another way."""
    tensor = bound["self"]
    before, arguments = tensor.detach(), state.arguments(bound)
    output = op(*args, **kwargs)
    if formula is aten.detach.default:
        state.memory.detach_in_place(tensor)
    else:
        step = Step(formula, arguments, "self", None, tuple(before.shape))
        state.memory.reshape(tensor, state.node(formula, arguments, tensor), step, before)
    return output


def _batch_norm(state: State, op: OpOverload, bound: dict[str, Any]) -> Any:
    """Batch norm by one of its kernels, as the formula that export writes: the running statistics are outputs."""
    momentum, eps = (bound[name] for name in BATCH_NORMS[op])
    running = [tensor for name in ("running_mean", "running_var") if (tensor := bound[name]) is not None]
    written = running if bound["training"] else []
    before = [state.memory.before_write(tensor) for tensor in written]
    names = ("input", "weight", "bias", *(("running_mean", "running_var") if running else ()))
    arguments = state.arguments({name: bound[name] for name in names})
    arguments |= {"training": True} if bound["training"] else {}
    output = op(**bound)
    formula = _batch_norm_formula(bound["training"], bool(running))
    ref = state.node(formula, {**arguments, "momentum": momentum, "eps": eps}, (*output[:3], *written))
    for index, tensor in enumerate(output[:3]):
        state.memory.add(tensor, Ref(ref.name, index))
    for index, tensor in enumerate(written):
        state.memory.write(tensor, Ref(ref.name, 3 + index), before[index], silent=state.cutting)
    return output


def _batch_norm_formula(training: bool, running: bool) -> OpOverload:
    if not training:
        return aten._native_batch_norm_legit_no_training.default
    return aten._native_batch_norm_legit_functional.default if running else aten._native_batch_norm_legit.no_stats
