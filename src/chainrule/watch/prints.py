"""A rank's part in a step, short enough to be shown to the others: a print of each tensor, and a few counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from chainrule.watch.observed import Event, StepRecord
from chainrule.watch.replica import Replica
from chainrule.watch.wrappers import Hold


def replica(record: StepRecord, events: Iterable[Event], hold: Hold) -> Replica:
    """What this rank did in the step, from what was recorded of it."""
    since = list(events)
    gradients = {path: grad for path, grad in record.gradients.items() if grad is not None}
    return Replica(
        optimizer=record.optimizer,
        number=record.number,
        before=_prints(record.before),
        gradients=_prints(gradients),
        after=_prints(record.after),
        constant=tuple(path for path, tensor in record.before.items() if _constant(tensor)),
        norms={path: float(grad.double().norm()) for path, grad in gradients.items() if not grad.is_sparse},
        entries={path: tuple(tensor.flatten()[:4].tolist()) for path, tensor in record.after.items()},
        settings=repr(record.settings),
        calls=dict(Counter(event.kind for event in since)),
        batches=tuple(str(e.numbers["fingerprint"]) for e in since if e.kind == "batch"),
        detached=hold.detached,
        wrapped=hold.wrapped,
        hooked=hold.hooked,
        forwards=hold.forwards,
        averaged=hold.averaged,
        line=record.line,
    )


def _prints(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {path: print_of(tensor) for path, tensor in tensors.items()}


def print_of(tensor: Tensor) -> str:
    """Shape, dtype and a hash of every bit."""
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    bits = dense.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.blake2b(bits, digest_size=12).hexdigest()}"


def _constant(tensor: Tensor) -> bool:
    return tensor.numel() < 2 or bool((tensor == tensor.flatten()[0]).all())
