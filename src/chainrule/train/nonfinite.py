"""What to say when loss or gradient became inf or nan: where it began, how it came, and how to see it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from chainrule.errors import NonFiniteError
from chainrule.train.engine import Batch, Loss

FOLDER = "nonfinite"


def first_non_finite(model: nn.Module, loss: Loss, batch: Batch) -> str | None:
    """Path of the module whose output is the first with inf or nan, found by running the forward pass again."""
    found: list[str] = []

    def hook(path: str) -> Any:
        def look(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and any(not torch.isfinite(tensor).all() for tensor in _tensors(output)):
                found.append(f"{path or 'the model'} ({type(module).__name__})")

        return look

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    try:
        with torch.no_grad():
            loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Floating point tensors in a module's output."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from (tensor for part in value for tensor in _tensors(part))


def bad_entries(tensors: Iterable[tuple[str, Tensor | None]]) -> list[str]:
    """In words: each tensor that holds inf or nan, and how many of its entries."""
    said = []
    for name, tensor in tensors:
        if tensor is None or torch.isfinite(tensor).all():
            continue
        count = int((~torch.isfinite(tensor)).sum())
        said.append(f"{name} ({'all' if count == tensor.numel() else f'{count:,} of'} {tensor.numel():,} entries)")
    return said


def diagnosis(
    model: nn.Module, loss: Loss, batches: Sequence[Batch], *, step: int, value: float, norm: float, recent: list[float]
) -> list[str]:
    """Lines that say what is not finite, where it began, and the losses that led there. Runs forward once more."""
    gradients = bad_entries((name, parameter.grad) for name, parameter in model.named_parameters())
    weights = bad_entries(model.named_parameters())
    places = (first_non_finite(model, loss, batch) for batch in batches)
    began = next((place for place in places if place), None)
    lines = [f"loss {value:g}, gradient norm {norm:g} at step {step}; nothing was updated"]
    if weights:
        lines.append(f"weights not finite before this step: {_some(weights)}")
    if began:
        lines.append(f"first activation that is not finite: {began}")
    elif gradients:
        lines.append("every activation is finite: it is the backward pass that overflows")
    if gradients:
        lines.append(f"gradients not finite: {_some(gradients)}")
    lines.append(f"losses before: {', '.join(f'{one:.4g}' for one in recent[-8:]) or 'none, it is the first step'}")
    return lines


def _some(said: list[str]) -> str:
    return ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")


def refusal(lines: list[str], folder: Path, checkpoint: Path, learning_rate: float) -> NonFiniteError:
    """The error that ends the run."""
    return NonFiniteError(
        "\n  ".join(
            [
                *lines,
                f"the batch: {folder}; weights, optimizer and random states before this step: {checkpoint}",
                f"often the learning rate is too high (here {learning_rate:g}): lower --optimizer.learning-rate, "
                "lengthen --schedule.warmup-steps, or set --optimizer.clip-norm",
            ]
        )
    )


def save_batches(folder: Path, step: int, batches: Sequence[Batch]) -> Path:
    """Keep the batch of a refused step, for replay."""
    target = folder / FOLDER / f"step-{step:06d}"
    target.mkdir(parents=True, exist_ok=True)
    for number, batch in enumerate(batches):
        save_file({name: tensor.contiguous() for name, tensor in batch.items()}, target / f"batch-{number}.safetensors")
    return target
