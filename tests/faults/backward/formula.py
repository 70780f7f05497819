"""A unit formula with a hand-written backward, and the `autograd.Function` made of it, right or with a planted fault.

g gradients of the outputs, inputs as forward got them, right the gradients of the inputs; None for an index.
As kernels do, a Function computes in float32 when its inputs are bfloat16, and rounds once at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Formula:
    """forward(*inputs, *extras) -> output(s); backward(g, *inputs, *extras) -> one gradient per input.

    stock  torch's own function of the same inputs, used where nothing is planted
    draw   (*inputs) -> extras: what forward draws at random and backward needs again, such as a dropout mask
    """

    name: str
    stock: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Gradients]
    draw: Callable[..., tuple[Tensor, ...]] | None = None


@dataclass(frozen=True)
class Call:
    """One call of a Function's backward, as a wrong backward sees it.

    state   survives from call to call, as a class attribute of a Function does; "latest" holds the tensors that the
            latest forward saved
    lent    g and saved as autograd handed them over, not widened: what a fault may write into by mistake
    """

    formula: Formula
    g: tuple[Tensor, ...]
    saved: tuple[Tensor, ...]
    right: Gradients
    state: dict[str, Any]
    lent: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

    def again(self, saved: tuple[Tensor, ...] | None = None, g: tuple[Tensor, ...] | None = None) -> Gradients:
        """The right backward from other saved tensors or another g."""
        return self.formula.backward(*(self.g if g is None else g), *(self.saved if saved is None else saved))


Wrong = Callable[[Call], Gradients]


@dataclass
class Log:
    """What a Function returned beside what was right, over all calls of one backward pass."""

    calls: list[tuple[Gradients, Gradients]] = field(default_factory=list)

    def relative_errors(self) -> list[float]:
        """‖returned - right‖ / ‖right‖ for each input, over all calls; 0 for an input without gradient."""
        return [relative_error(pairs) for pairs in self.by_input()]

    def by_input(self) -> list[list[tuple[Tensor | None, Tensor | None]]]:
        calls = [list(zip(returned, right, strict=True)) for returned, right in self.calls]
        return [list(pairs) for pairs in zip(*calls, strict=True)]


def relative_error(pairs: list[tuple[Tensor | None, Tensor | None]]) -> float:
    """‖returned - right‖ / ‖right‖ over all pairs; a missing gradient counts as zeros."""
    error = scale = 0.0
    for returned, right in pairs:
        if right is not None:
            given = torch.zeros_like(right) if returned is None else returned
            error += float((given.double() - right.double()).square().sum())
            scale += float(right.double().square().sum())
    return (error / scale) ** 0.5 if scale else 0.0


def widened(tensor: Tensor) -> Tensor:
    """bfloat16 and float16 to float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def narrow(values: Any, like: torch.dtype) -> Any:
    """Tensor or tuple of tensors, rounded to the dtype `like`."""
    return values.to(like) if isinstance(values, Tensor) else tuple(value.to(like) for value in values)


def function_of(
    formula: Formula,
    wrong: Wrong | None = None,
    mix: tuple[float, ...] | None = None,
    *,
    log: Log | None = None,
    wide: bool = True,
    only: torch.dtype | None = None,
) -> type[Function]:
    """The formula as a custom Function; with `wrong`, input i's gradient is right_i + mix_i · (wrong_i - right_i).

    wide  False: every intermediate result is rounded to the inputs' own dtype, as plain torch code does it
    only  the one dtype that it takes, as a compiled kernel does; None: any
    """
    state: dict[str, Any] = {}
    widen = widened if wide else as_it_is

    def forward(ctx: Any, *inputs: Tensor) -> Any:
        if only is not None and inputs[0].dtype is not only:
            raise TypeError(f"this kernel is made for {only}, got {inputs[0].dtype}")
        extras = formula.draw(*inputs) if formula.draw else ()
        ctx.save_for_backward(*inputs, *extras)
        if wrong is not None:
            state["latest"] = (*inputs, *extras)
        y = formula.forward(*map(widen, inputs), *map(widen, extras))
        return narrow(y, inputs[0].dtype)

    def backward(ctx: Any, *g: Tensor) -> Any:
        saved = tuple(map(widen, ctx.saved_tensors))
        arrived = tuple(map(widen, g))
        right = given = formula.backward(*arrived, *saved)
        if wrong is not None:
            given = mixed(right, wrong(Call(formula, arrived, saved, right, state, (g, ctx.saved_tensors))), mix)
        rounded = tuple(None if t is None else t.to(s.dtype) for t, s in zip(given, ctx.saved_tensors, strict=False))
        if log is not None:
            exact = tuple(None if t is None else t.to(s.dtype) for t, s in zip(right, ctx.saved_tensors, strict=False))
            log.calls.append((rounded, exact))
        return rounded if len(rounded) > 1 else rounded[0]

    name = f"{formula.name.title().replace('_', '')}Function"
    return type(name, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})


def mixed(right: Gradients, bad: Gradients, mix: tuple[float, ...] | None) -> Gradients:
    """right + mix · (bad - right), input by input; bad itself where there is no mix."""
    if mix is None:
        return bad
    pairs = zip(right, bad, mix, strict=True)
    return tuple(b if r is None or b is None else r + m * (b - r) for r, b, m in pairs)
