"""Which module lets something through: its inputs at the places that are kept are the same, its outputs there are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Copies
from chainrule.checks.dependence.taps import Alter, run
from chainrule.finding import Line
from chainrule.graph import Graph, Node, op_name
from chainrule.tolerance import unit

# A part of a tensor whose sameness is asked for; None if the tensor has no such part.
Part = Callable[[Tensor], Tensor | None]
ROUNDING = 100 * unit(torch.float32)  # of a tensor's size: what a transform that mixes all positions (an FFT) may round
# Formulas that read other positions or examples, those that are most often at fault first.
_MIXING = (
    "scaled_dot_product_attention",
    "softmax",
    "convolution",
    "conv1d",
    "conv2d",
    "group_norm",
    "native_group_norm",
    "lstm",
    "gru",
    "flip",
    "roll",
    "cumsum",
    "bmm",
    "matmul",
    "mean",
    "sum",
    "reshape",
    "view",
    "transpose",
    "permute",
)


def leaking_module(copies: Copies, alter: Alter, part: Part) -> str | None:
    """Path of the innermost module that is first to pass on what `alter` changes outside `part`; None if none is."""
    before, after = _parts(copies, None, part), _parts(copies, alter, part)
    for path, (inputs, outputs) in before.items():
        if path in after and inputs and outputs:
            inputs_after, outputs_after = after[path]
            if same(inputs, inputs_after) and not same(outputs, outputs_after):
                return path
    return None


def mixing_line(graph: Graph, module: str) -> Line | None:
    """The line in the module at which positions or examples are mixed; None if no formula of it does that."""
    inside = [node for node in graph.nodes if node.module == module]
    inside = inside or [node for node in graph.nodes if node.module.startswith(f"{module}.") or not module]
    for name in _MIXING:
        node = next((node for node in inside if op_name(node.op) == name and node.source), None)
        if node is not None:
            return _line(node)
    return None


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """True if the tensors are equal but for rounding."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return False
    return all(_close(a, b) for a, b in zip(first, second, strict=True))


def _close(first: Tensor, second: Tensor) -> bool:
    if not first.is_floating_point():
        return torch.equal(first, second)
    first, second = torch.nan_to_num(first.double()), torch.nan_to_num(second.double())
    return float((first - second).norm()) <= ROUNDING * float(first.norm())


def _parts(copies: Copies, alter: Alter | None, part: Part) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Path -> the kept parts of what each module was given and returned at its first call, in the order of returning."""
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    def watch(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            if path not in seen:
                seen[path] = _kept((args, dict(kwargs)), part), _kept(output, part)

        return hook

    hooks = [m.register_forward_hook(watch(path), with_kwargs=True) for path, m in copies.model.named_modules()]
    try:
        run(copies, alter)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _kept(values: Any, part: Part) -> list[Tensor]:
    parts = (part(tensor.detach()) for tensor in tensors_of(values).values())
    return [kept.clone() for kept in parts if kept is not None]


def _line(node: Node) -> Line | None:
    source = node.source
    return None if source is None else Line(source.file, source.line, source.code)
