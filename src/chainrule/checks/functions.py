"""The custom autograd.Functions that an eager run applies: where, on what, and whether they wrote into their inputs."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, _SingleLevelFunction

from chainrule.capture.batches import tensors_of
from chainrule.capture.provenance import is_user_frame
from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Line


@dataclass(frozen=True, eq=False)
class Applied:
    """One application of a custom Function.

    nodes    the nodes of autograd's graph that it made
    wrote    True if an input holds other numbers afterwards although autograd was not told
    """

    name: str
    line: Line | None
    wrote: bool
    nodes: tuple[Any, ...] = ()


def functions_of(subject: Subject) -> tuple[list[Applied], list[Applied]]:
    """The custom Functions that the loss applies, and those of them whose results do not reach it."""
    return subject.once(
        "custom functions", lambda: on_copies(subject.setup, subject.batch, _applied, seed=subject.seed)
    )


def _applied(copies: Copies) -> tuple[list[Applied], list[Applied]]:
    with applications() as applied:
        loss = copies.loss()
    history = _history(loss) if applied else set()
    lost = [one for one in applied if one.nodes and not any(node in history for node in one.nodes)]
    return [replace(one, nodes=()) for one in applied], [replace(one, nodes=()) for one in lost]


def _history(loss: Tensor) -> set[Any]:
    """Every node of autograd's graph behind the loss."""
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return seen


@contextmanager
def applications(*, on_clones: bool = False) -> Iterator[list[Applied]]:
    """While the block runs, each application of a Function that is not torch's own is added to the list.

    on_clones  hands each Function clones of its inputs, so that what it writes into them hurts nobody
    """
    applied: list[Applied] = []

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        plain = super(_SingleLevelFunction, cls).apply  # type: ignore[misc]
        if cls.__module__.startswith("torch."):
            return plain(*args, **kwargs)
        args = tuple(_clone(arg) for arg in args) if on_clones else args
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        before = [(tensor.detach().clone(), tensor._version) for tensor in inputs]
        result = plain(*args, **kwargs)
        wrote = any(_changed(tensor, *was) for tensor, was in zip(inputs, before, strict=True))
        nodes = tuple(tensor.grad_fn for tensor in tensors_of(result).values() if tensor.grad_fn is not None)
        applied.append(Applied(cls.__name__, _line(), wrote, nodes))
        return result

    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        yield applied
    finally:
        del _SingleLevelFunction.apply  # type: ignore[attr-defined]


def _clone(arg: Any) -> Any:
    return arg.clone() if isinstance(arg, Tensor) and not arg.is_leaf else arg


def _changed(tensor: Tensor, before: Tensor, version: int) -> bool:
    return tensor._version == version and not torch.equal(torch.nan_to_num(tensor.detach()), torch.nan_to_num(before))


def _line() -> Line | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user_frame(frame):
        frame = frame.f_back
    if frame is None:
        return None
    file, number = frame.f_code.co_filename, frame.f_lineno
    return Line(file, number, linecache.getline(file, number).strip())
