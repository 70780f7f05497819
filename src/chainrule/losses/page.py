"""What is to be read of a loss, as (label, text) lines: for the terminal and for docs/losses.md."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from chainrule.losses.entry import Inputs, Loss, Naive

TARGETS = {
    "numbers": "targets are numbers",
    "counts": "targets are counts: 0, 1, 2 ...",
    "binary": "targets are 1 or 0",
    "classes": "targets are one of C classes",
    "other": "compares what it is given",
}


def page(loss: Loss) -> list[tuple[str, str]]:
    """All that the catalogue says of a loss, and what its naive form gives where it breaks, computed now."""
    lines = [
        ("task", f"{loss.task}; {TARGETS[loss.target]}"),
        ("term", loss.formula),
        ("gradient", loss.gradient),
        ("settings", settings(loss) or "none"),
        ("outliers", loss.outliers),
        ("choose", loss.choose),
        ("avoid", loss.avoid),
    ]
    if loss.naive is None:
        return [*lines, ("naive form", "none breaks: it is computed as it stands")]
    return [*lines, ("naive form", loss.naive.form), ("breaks", loss.naive.breaks), ("there", _there(loss, loss.naive))]


def settings(loss: Loss) -> str:
    """The settings of a loss's function with their defaults: "gamma = 2.0"."""
    parameters = inspect.signature(loss.function).parameters.values()
    return ", ".join(f"{p.name} = {p.default}" for p in parameters if p.kind is p.KEYWORD_ONLY)


def _there(loss: Loss, naive: Naive) -> str:
    """Loss and gradient of both forms at the place where the naive one breaks."""
    at = naive.at()
    return f"naive {_measured(naive.function, at, loss)}; this {_measured(loss.function, at, loss)}"


def _measured(function: Callable[..., Tensor], at: Inputs, loss: Loss) -> str:
    given = {name: x.clone().requires_grad_() if name in loss.moves else x for name, x in at.items()}
    value = function(**given)
    gradients = torch.autograd.grad(value, [given[name] for name in loss.moves])
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return f"{float(value.detach()):.4g}, norm of its gradient {float(norm):.4g}"
