"""The command `numerical`: the textbook's numerical gradient, element by element, beside the chain rule's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Literal

from chainrule.errors import ConfigError
from chainrule.setup_file import load_setup

if TYPE_CHECKING:
    from torch import Tensor

    from chainrule.compare.entries import NumericalGradient
    from chainrule.graph import Graph

Index = tuple[int, ...]
Method = Literal["forward", "central", "order8", "complex"]
FORMULAS = {
    "forward": "(L(W + hE) - L(W)) / h",
    "central": "(L(W + hE) - L(W - hE)) / 2h",
    "order8": "Σ cₖ (L(W + khE) - L(W - khE)) / h, k = 1 … 4",
    "complex": "Im L(W + ihE) / h",
}


def numerical(
    target: str,
    /,
    *,
    parameter: str,
    h: float | None = None,
    method: Method = "forward",
    rows: str = ":",
    columns: str = ":",
    sweep: bool = False,
) -> int:
    """Print the numerical gradient of a parameter: each element raised by h, the whole model run again.

    Parameters
    ----------
    target
        FILE.py or FILE.py:function; the function (default: setup) returns a chainrule.Setup.
    parameter
        Name of the parameter, e.g. blocks.0.attention.value.weight.
    h
        The step. Without it, one that suits the method and the parameter's size is chosen.
    method
        forward: the textbook's; central; order8: with an error bar; complex: a step along the imaginary axis.
    rows
        Which rows, as in Python: 0:4, or one: 2. Default: all.
    columns
        Which columns, as in Python. Default: all.
    sweep
        Show the error over the step h instead, for the element with the largest gradient among those chosen.
    """
    if h is not None and not h > 0:
        raise ConfigError(f"--h must be a positive step, got {h:g}")
    setup = load_setup(target)
    import torch

    from chainrule import api
    from chainrule.capture import promote
    from chainrule.checks.subject import first_batch
    from chainrule.compare.entries import find_parameter

    graph = promote(api.capture(setup.model, setup.loss, first_batch(setup)), torch.float64)
    parameter = find_parameter(graph, parameter).path
    gradient = api.value_and_grad(graph)[1][parameter]
    indices = chosen(tuple(gradient.shape), rows, columns)
    if sweep:
        show_sweep(graph, parameter, gradient, indices)
    else:
        show_table(graph, parameter, gradient, indices, method, h)
    return 0


def chosen(shape: tuple[int, ...], rows: str, columns: str) -> list[Index]:
    """Indices of the chosen elements; of more than two dimensions the last ones are all taken."""
    given = [(rows, "--rows"), (columns, "--columns")]
    if columns != ":" and len(shape) < 2:
        raise ConfigError(f"--columns {columns}: the parameter has shape {shape}, so only --rows can be chosen")
    ranges = [span(*given[axis], size) if axis < 2 else range(size) for axis, size in enumerate(shape)]
    return list(product(*ranges))


def span(text: str, flag: str, size: int) -> range:
    """The indices that "0:4", ":", "-2:" or "3" mean in a dimension of that size."""
    try:
        numbers = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] is not None and -size <= numbers[0] < size:
        return range(size)[numbers[0] : numbers[0] + 1 or None]
    if not 2 <= len(numbers) <= 3 or not range(size)[slice(*numbers)]:
        raise ConfigError(f"{flag} {text}: expected an index or a range such as 0:4 within 0:{size}")
    return range(size)[slice(*numbers)]


def show_table(graph: Graph, name: str, exact: Tensor, indices: list[Index], method: Method, h: float | None) -> None:
    """The table, and below it how far the two gradients lie apart."""
    from chainrule import api

    started = time.perf_counter()
    found = api.numerical_gradient(graph, name, method=method, h=h, entries=indices)
    seconds = time.perf_counter() - started
    print(f"{name} {tuple(exact.shape)}, {method} difference {FORMULAS[method]}, h = {found.h:.3g}\n")
    for line in table(found, exact, indices):
        print(line)
    worst, scale = max(abs(float(found.gradient[i] - exact[i])) for i in indices), float(exact.norm())
    share = f", {worst / scale:.1e} of the gradient's norm {scale:.3e}" if scale else ""
    print(f"\n{found.reason}")
    print(f"{len(indices):,} elements, {found.evaluations:,} evaluations of the loss, {seconds:.2f} s")
    print(f"largest difference {worst:.1e}{share}")


def table(found: NumericalGradient, exact: Tensor, indices: list[Index]) -> Iterator[str]:
    """The lines of the table: with the two losses for the textbook's method, with the error bar where there is one."""
    middle = extra_columns(found)
    yield row("element", list(middle), ("gradient", "chain rule", "difference"))
    for i in indices:
        ours, theirs = float(found.gradient[i]), float(exact[i])
        last = (f"{ours:+.9e}", f"{theirs:+.9e}", f"{ours - theirs:+.1e}")
        yield row(str(list(i)), [cell(i) for cell in middle.values()], last)


def extra_columns(found: NumericalGradient) -> dict[str, Callable[[Index], str]]:
    """Title -> cell of what the method has besides the gradient: two losses, or an error bar."""
    plus, current, bar = found.loss_plus, found.loss_current, found.bar
    if plus is not None and current is not None:
        return {"L_plus": lambda i: f"{float(plus[i]):.15f}", "L_current": lambda _: f"{float(current):.15f}"}
    return {} if bar is None else {"bar": lambda i: f"{float(bar[i]):.1e}"}


def row(element: str, middle: list[str], last: tuple[str, str, str]) -> str:
    """One line of the table."""
    between = "".join(f"{value:>{20 if len(middle) == 2 else 10}}" for value in middle)
    return f"{element:<12}{between}{last[0]:>18}{last[1]:>18}{last[2]:>12}"


def show_sweep(graph: Graph, name: str, exact: Tensor, indices: list[Index]) -> None:
    """The error of each method over the step: a table, then the V of truncation and round-off."""
    import torch

    from chainrule.autodiff import evaluate
    from chainrule.compare.lines import LossLines
    from chainrule.graph import Ref
    from chainrule.numdiff.sweep import plot, sweep, table

    index = max(indices, key=lambda i: abs(float(exact[i])))
    moved = Ref(graph.parameters[name].name)
    direction = torch.zeros(1, *exact.shape, dtype=torch.float64)
    direction[(0, *index)] = 1.0
    line = LossLines(graph, (moved,), evaluate(graph)).prepare({moved: direction}).line()
    result = sweep(line, float(exact[index]))
    print(f"{name}{list(index)}: |numerical - chain rule| over h; the gradient is {result.reference:+.9e}\n")
    for cells in table(result):
        print("".join(f"{cell:>12}" for cell in cells))
    print("\n" + plot(result) + "\n")
    for method in result.errors:
        h, error = result.best(method)
        print(f"{method:8} comes closest at h = {h:.1e}: error {error:.1e}")
