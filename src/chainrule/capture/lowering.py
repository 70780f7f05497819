"""In-place operations and writes through views, as formulas without side effect.

x.add_(y) becomes x' = add(x, y); a write through a view v = select(x, 0) becomes x' = select_scatter(x, v', 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload

from chainrule.graph import Argument, Ref

aten = torch.ops.aten
# In-place operations whose formula has a name of its own.
_RENAMED = {aten.normal_.default: aten.normal_functional.default}


@dataclass(frozen=True, eq=False)
class Step:
    """One view on the way from a tensor that owns its memory to a tensor that shares it.

    op         the view operation
    arguments  by schema name, as for a node; `None` stands for the tensor that is viewed
    of         name of that argument
    index      which output, of an operation with several
    shape      of the tensor that is viewed
    """

    op: OpOverload
    arguments: Mapping[str, Argument]
    of: str
    index: int | None
    shape: tuple[int, ...]

    def at(self, ref: Ref) -> dict[str, Argument]:
        """The view's arguments, taken of the value `ref`."""
        return {**self.arguments, self.of: ref}


# What puts a changed view back: (operation, its arguments by position); None where the view itself is the answer.
Written = tuple[OpOverload, tuple[Argument, ...]] | None


@cache
def written_arguments(op: OpOverload) -> tuple[str, ...]:
    """Names of the arguments that the operation writes to."""
    return tuple(a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write)


@cache
def functional(op: OpOverload) -> OpOverload | None:
    """The operation that computes what an in-place or `out=` operation writes, or None if torch has none."""
    if op in _RENAMED:
        return _RENAMED[op]
    space, name = op._schema.name.split("::")
    wanted = [argument for argument in _arguments(op) if argument[0] not in _outputs(op)]
    base = name.removesuffix("__") + "__" if name.startswith("__i") else name.removesuffix("_")
    packet = getattr(getattr(torch.ops, space), base.replace("__i", "__", 1), None)
    if packet is None:
        return None
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    overloads.sort(key=lambda other: other._overloadname != op._overloadname)
    fitting = (other for other in overloads if not other._schema.is_mutable and _arguments(other) == wanted)
    return next(fitting, None)


def _outputs(op: OpOverload) -> set[str]:
    return {a.name for a in op._schema.arguments if a.is_out}


def _arguments(op: OpOverload) -> list[tuple[str, str]]:
    return [(a.name, str(a.type)) for a in op._schema.arguments]


def put_back(step: Step, base: Ref, view: Ref) -> Written:
    """The viewed tensor after its view took the value `view`. Raises KeyError if the view cannot be written through."""
    return _PUT_BACK[step.op](step, base, view)


def _select_scatter(step: Step, base: Ref, view: Ref) -> Written:
    return aten.select_scatter.default, (base, view, step.arguments["dim"], step.arguments["index"])


def _slice_scatter(step: Step, base: Ref, view: Ref) -> Written:
    a = step.arguments
    return aten.slice_scatter.default, (base, view, a["dim"], a["start"], a["end"], a["step"])


def _diagonal_scatter(step: Step, base: Ref, view: Ref) -> Written:
    a = step.arguments
    return aten.diagonal_scatter.default, (base, view, a["offset"], a["dim1"], a["dim2"])


def _as_strided_scatter(step: Step, base: Ref, view: Ref) -> Written:
    a = step.arguments
    return aten.as_strided_scatter.default, (base, view, a["size"], a["stride"], a["storage_offset"])


def _split_scatter(step: Step, base: Ref, view: Ref) -> Written:
    size, dim = step.arguments["split_size"], step.arguments["dim"]
    start = size * (step.index or 0)
    return aten.slice_scatter.default, (base, view, dim, start, min(start + size, step.shape[dim]), 1)


def _split_with_sizes_scatter(step: Step, base: Ref, view: Ref) -> Written:
    sizes, dim, i = step.arguments["split_sizes"], step.arguments["dim"], step.index or 0
    start = sum(sizes[:i])
    return aten.slice_scatter.default, (base, view, dim, start, start + sizes[i], 1)


def _unbind_scatter(step: Step, base: Ref, view: Ref) -> Written:
    return aten.select_scatter.default, (base, view, step.arguments["dim"], step.index or 0)


def _reshaped(step: Step, _: Ref, view: Ref) -> Written:
    return aten.view.default, (view, step.shape)


def _transposed(step: Step, _: Ref, view: Ref) -> Written:
    return aten.transpose.int, (view, step.arguments["dim0"], step.arguments["dim1"])


def _permuted(step: Step, _: Ref, view: Ref) -> Written:
    rank = len(step.shape)
    order = [dim % rank for dim in step.arguments["dims"]]
    return aten.permute.default, (view, tuple(order.index(dim) for dim in range(rank)))


def _matrix_transposed(_: Step, __: Ref, view: Ref) -> Written:
    return aten.t.default, (view,)


def _itself(*_: Any) -> Written:
    return None


_PUT_BACK: Mapping[OpOverload, Callable[[Step, Ref, Ref], Written]] = {
    aten.select.int: _select_scatter,
    aten.slice.Tensor: _slice_scatter,
    aten.diagonal.default: _diagonal_scatter,
    aten.as_strided.default: _as_strided_scatter,
    aten.split.Tensor: _split_scatter,
    aten.split_with_sizes.default: _split_with_sizes_scatter,
    aten.unbind.int: _unbind_scatter,
    aten.view.default: _reshaped,
    aten._unsafe_view.default: _reshaped,
    aten._reshape_alias.default: _reshaped,
    aten.unsqueeze.default: _reshaped,
    aten.squeeze.default: _reshaped,
    aten.squeeze.dim: _reshaped,
    aten.squeeze.dims: _reshaped,
    aten.transpose.int: _transposed,
    aten.permute.default: _permuted,
    aten.t.default: _matrix_transposed,
    aten.alias.default: _itself,
}


def same_layout(one: Any, other: Any) -> bool:
    """True if two tensors on one memory show the same numbers in the same order."""
    return bool(
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
        and one.dtype == other.dtype
    )
