"""The command `explain`: what the optimizer does to one weight, update by update, beside its formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from chainrule.errors import ConfigError, SetupError
from chainrule.setup_file import load_setup

if TYPE_CHECKING:
    from torch import Tensor

    from chainrule.explain.updates import Update

WIDTH = 160  # a table of numbers does not fold


def explain(target: str, /, *, parameter: str, element: str = "", steps: int = 5) -> int:
    """Show what the optimizer does to one weight: gradient, moments and their correction, step, new value.

    The same batch is learned again and again on copies; nothing of yours changes.

    Parameters
    ----------
    target
        FILE.py or FILE.py:function; the function (default: setup) returns a chainrule.Setup with an optimizer.
    parameter
        Name of the parameter, e.g. blocks.0.attention.value.weight.
    element
        Which entry, e.g. 0,3. Default: the one with the largest gradient.
    steps
        How many updates.
    """
    if steps < 1:
        raise ConfigError(f"--steps is {steps}; it must be 1 or more")
    setup = load_setup(target)
    if not setup.optimizers:
        raise SetupError(f"the set-up of {target} names no optimizer: give Setup(..., optimizer=...)")
    import torch

    from chainrule import api
    from chainrule.capture import promote
    from chainrule.checks.subject import first_batch
    from chainrule.compare.entries import find_parameter
    from chainrule.explain.updates import follow, formula, held_parameters

    graph = promote(api.capture(setup.model, setup.loss, first_batch(setup)), torch.float64)
    leaf = find_parameter(graph, parameter)
    holding = ((each, held_parameters(setup.model, each)) for each in setup.optimizers)
    optimizer, held = next(((each, held) for each, held in holding if leaf.path in held), (setup.optimizers[0], {}))
    entry = index(element, tuple(leaf.value.shape)) or largest(api.value_and_grad(graph)[1][leaf.path])
    updates = list(follow(graph, setup.model, optimizer, leaf.path, entry, steps))

    settings = {key: value for key, value in held[leaf.path].settings.items() if key in held[leaf.path].rule.needs}
    print(f"{held[leaf.path].rule.name} on {leaf.path}{list(entry)}, from {float(leaf.value[entry]):+.9e}")
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    for line in formula(held[leaf.path].rule):
        print(f"    {line}")
    show(updates)
    return 0


def index(text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(0, 3) of "0,3"; () if nothing is given. Raises ConfigError if the parameter has no such entry."""
    if not text:
        return ()
    try:
        entry = tuple(int(part) for part in text.strip("[] ").split(","))
    except ValueError:
        raise ConfigError(f"--element is {text!r}; whole numbers with commas are expected, such as 0,3") from None
    if len(entry) != len(shape) or not all(0 <= i < n for i, n in zip(entry, shape, strict=True)):
        raise ConfigError(f"--element is {text!r}; the parameter has the shape {shape}")
    return entry


def largest(gradient: Tensor) -> tuple[int, ...]:
    """The entry of the largest gradient."""
    import torch

    return tuple(int(i) for i in torch.unravel_index(gradient.abs().argmax(), gradient.shape))


def show(updates: list[Update]) -> None:
    """Print one row an update."""
    from rich.console import Console

    memory = list(updates[0].memory)
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "loss", "gradient", *memory, "change", "value", "the optimizer's own", "difference"):
        table.add_column(heading, justify="right")
    for one in updates:
        real = ("-", "-") if one.real is None else (f"{one.real:+.9e}", f"{one.real - one.value:+.1e}")
        remembered = (f"{one.memory[name]:+.4e}" for name in memory)
        table.add_row(
            str(one.number), f"{one.loss:.6f}", f"{one.gradient:+.4e}", *remembered, f"{one.change:+.4e}",
            f"{one.value:+.9e}", *real,
        )  # fmt: skip
    print()
    Console(width=WIDTH, highlight=False).print(table)
