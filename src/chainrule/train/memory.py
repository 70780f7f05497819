"""What a forward pass keeps for its backward pass, and how many examples can therefore be taken at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from chainrule.train.records import plural, size
from chainrule.watch import memory

SHARE = 0.5  # of the free memory that activations may take: gradients, optimizer and others need the rest
LARGEST = 64  # examples at once; more keep a processor no busier


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device can still give; None if it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return memory.free() if device.type == "cpu" else None


def examples_at_once(example: str, wanted: int, each: int, free: int | None) -> tuple[int, str]:
    """(examples in one forward pass, why) of `wanted` in an update, of which each keeps `each` bytes."""
    fitting = LARGEST if free is None else max(1, int(SHARE * free / max(1, each)))
    chosen = min(wanted, fitting, LARGEST)
    there = "" if free is None else f", {size(free)} are free"
    return chosen, f"auto: {plural(chosen, example)} of {wanted:,} at once; each keeps {size(each)} for backward{there}"


def kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the different storages, the model's own left out, that autograd keeps of a forward pass."""
    with _saved() as kept:
        loss = forward()  # alive until its storages are counted: a freed place would be taken again
        own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
        del loss
    return sum(size for place, size in kept.items() if place not in own)


@contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Place and bytes of each storage that autograd keeps in the block."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
