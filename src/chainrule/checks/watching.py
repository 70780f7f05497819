"""What every module was given and returned in a run, and the first module at which two runs part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Copies
from chainrule.tolerance import unit

# A part of a tensor whose sameness is asked for; None if the tensor has no such part.
Part: TypeAlias = Callable[[Tensor], Tensor | None]
Parts: TypeAlias = dict[str, tuple[list[Tensor], list[Tensor]]]
ROUNDING = 100 * unit(torch.float32)  # of a tensor's size: what a transform that mixes all positions (an FFT) may round


def first_difference(
    copies: Copies, first: Callable[[], object], second: Callable[[], object], part: Part, *, rounding: float = 0.0
) -> str | None:
    """Path of the innermost module that returns first of those whose inputs are the same in both runs, its outputs not."""
    before, after = parts_of(copies, first, part), parts_of(copies, second, part)
    for path, (inputs, outputs) in before.items():
        if path in after and inputs and outputs:
            inputs_after, outputs_after = after[path]
            if same(inputs, inputs_after, rounding) and not same(outputs, outputs_after, rounding):
                return path
    return None


def parts_of(copies: Copies, run: Callable[[], object], part: Part) -> Parts:
    """Path -> the parts of what each module was given and returned at its first call, in the order of returning."""
    seen: Parts = {}

    def watch(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            if path not in seen:
                seen[path] = _kept((args, dict(kwargs)), part), _kept(output, part)

        return hook

    hooks = [m.register_forward_hook(watch(path), with_kwargs=True) for path, m in copies.model.named_modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def same(first: list[Tensor], second: list[Tensor], rounding: float) -> bool:
    """True if the tensors are equal but for rounding."""
    if [t.shape for t in first] != [t.shape for t in second]:
        return False
    return all(_close(a, b, rounding) for a, b in zip(first, second, strict=True))


def _close(first: Tensor, second: Tensor, rounding: float) -> bool:
    if not first.is_floating_point():
        return torch.equal(first, second)
    first, second = torch.nan_to_num(first.double()), torch.nan_to_num(second.double())
    return float((first - second).norm()) <= rounding * float(first.norm())


def _kept(values: Any, part: Part) -> list[Tensor]:
    parts = (part(tensor.detach()) for tensor in tensors_of(values).values())
    return [kept.clone() for kept in parts if kept is not None]
