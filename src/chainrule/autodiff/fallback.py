"""The vector-Jacobian product of an op that has no rule, by differences: labelled, counted, and never part of a PASS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, run_op
from chainrule.errors import MissingRuleError
from chainrule.graph import Node, Ref, Value
from chainrule.numdiff.noise import rounding_noise
from chainrule.numdiff.stencils import order8
from chainrule.numdiff.steps import relative_step

LARGEST = 4096  # entries of an argument; each costs eight runs of the op


def numerical_pull_back(node: Node, values: Mapping[str, Value], g: Any) -> Iterator[tuple[Ref, Tensor]]:
    """(argument, its share of the gradient) by order-8 differences of Σ g·op, entry by entry.

    Raises MissingRuleError if an argument has more than 4096 entries or is not float64: differences need both.
    """
    arguments = resolve(node, values)
    cotangents = g if isinstance(g, tuple) else (g,)
    for name, ref in node.arguments.items():
        x = arguments[name]
        if not isinstance(ref, Ref) or not x.is_floating_point():
            continue
        if x.numel() > LARGEST or x.dtype is not torch.float64:
            raise MissingRuleError(
                f"{node.op} has no derivative rule, at {node.where} ({node.source}), and its argument {name} "
                f"{tuple(x.shape)} {x.dtype} is too large or too coarse for differences (at most {LARGEST} entries of "
                "float64). Add a rule in chainrule/derivatives (CONTRIBUTING, 'add a derivative rule')."
            )
        yield ref, _gradient(node, arguments, name, x, cotangents)


def _gradient(node: Node, arguments: dict[str, Any], name: str, x: Tensor, cotangents: tuple[Any, ...]) -> Tensor:
    def at(moved: Tensor) -> float:
        y = run_op(node.op, {**arguments, name: moved})
        parts = y if isinstance(y, tuple) else (y,)
        return float(sum((c * part).sum() for c, part in zip(cotangents, parts, strict=True) if c is not None))

    gradient = torch.zeros_like(x).flatten()
    noise = rounding_noise(torch.tensor([at(x)], dtype=torch.float64))
    h = relative_step(x).h
    for i in range(x.numel()):
        unit = torch.zeros_like(x).flatten()
        unit[i] = 1.0
        direction = unit.view(x.shape)

        def line(offsets: Tensor, direction: Tensor = direction) -> Tensor:
            losses = [at(x + float(t) * direction) for t in offsets.flatten()]
            return torch.tensor(losses, dtype=torch.float64).view(offsets.shape)

        gradient[i] = order8(line, h, noise).value
    return gradient.view(x.shape)
