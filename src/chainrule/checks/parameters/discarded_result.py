"""discarded-result: a custom autograd.Function is applied, and what it returns never reaches the loss.

What it checks
    Each custom Function that is applied to values with a gradient has its output in the loss's own history.
Why it matters
    A Function that hands a gradient in by the back door (the scaler of an auxiliary loss) works only if its result is used
    in place of its input. Called for its effect, it does nothing: the router never hears of its balance loss.
How it decides
    The applications of one eager run are written down; the history of the loss is walked from its grad_fn. One that is not
    in it, though its inputs carry a gradient, is a warning.
Broken
    AuxiliaryLoss.apply(x, balance)
Repaired
    x = AuxiliaryLoss.apply(x, balance)
Limits
    A Function applied for a metric only is reported too; run it under no_grad.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor
from torch.autograd.function import Function, _SingleLevelFunction

from chainrule.capture.batches import tensors_of
from chainrule.capture.provenance import is_user_frame
from chainrule.checks.copies import Copies, on_copies
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, Line, Outcome

NAME = "discarded-result"


@dataclass(frozen=True, eq=False)
class Applied:
    """One application of a custom Function, and the nodes of autograd's graph that it made."""

    name: str
    line: Line | None
    nodes: tuple[Any, ...]


def check(subject: Subject) -> Outcome:
    """One finding for each line that applies a Function to no effect."""
    unused = on_copies(subject.setup, subject.batch, _unused, seed=subject.seed)
    return [_finding(subject, one) for one in unused.values()]


def _unused(copies: Copies) -> dict[Line | None, Applied]:
    with applications() as applied:
        loss = copies.loss()
    history = _history(loss)
    return {one.line: one for one in applied if one.nodes and not any(node in history for node in one.nodes)}


@contextmanager
def applications() -> Iterator[list[Applied]]:
    """While the block runs, each application of a Function that is not torch's own is added to the list."""
    applied: list[Applied] = []

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        result = super(_SingleLevelFunction, cls).apply(*args, **kwargs)  # type: ignore[misc]
        if not cls.__module__.startswith("torch."):
            outputs = [tensor for tensor in tensors_of(result).values() if tensor.grad_fn is not None]
            applied.append(Applied(cls.__name__, _line(), tuple(tensor.grad_fn for tensor in outputs)))
        return result

    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        yield applied
    finally:
        del _SingleLevelFunction.apply  # type: ignore[attr-defined]


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


def _line() -> Line | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user_frame(frame):
        frame = frame.f_back
    if frame is None:
        return None
    file, number = frame.f_code.co_filename, frame.f_lineno
    return Line(file, number, linecache.getline(file, number).strip())


def _finding(subject: Subject, applied: Applied) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=applied.name,
        source=applied.line,
        message=f"{applied.name} is applied and its result does not reach the loss: its backward never runs",
        evidence={"function": applied.name},
        notes=("Use the result in place of the input, or run it under no_grad if it is there for a metric only.",),
        reproduce=subject.reproduce(NAME),
    )
