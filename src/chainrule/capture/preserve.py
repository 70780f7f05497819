"""Nothing of the user's changes: what running a model may touch is written down first and put back afterwards.

Running `loss(model, batch)`, and exporting it even more, leaves traces: activations kept in attributes, lists that
hooks append to, counters, generators that moved, gradients. `preserved` walks what is reachable from the model, the
loss and the batch, saves each container, attribute table and generator, and restores them in place, so that identities
stay too.

Not restored: what a consumed iterator has given out, arrays of more than 256 MB, and whatever lies outside the process
(files, sockets).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from chainrule.capture.reachable import Restore, Walk

Undo = Callable[[], None]


@contextmanager
def preserved(*owners: Any, generators: tuple[Any, ...] = (), contents: bool = False) -> Iterator[None]:
    """Put back everything reachable from `owners`, and every global generator and setting, when the block ends.

    owners      model, loss, batch, optimizer ...: attributes, containers, closures, hooks, globals of their functions,
                training and requires_grad flags, .grad, generators
    generators  loaders, samplers, data sets: only the random generators reachable from them
    contents    save and restore the numbers in parameters too, and in tensors of more than 256 MB; False where the block
                runs on fake tensors or on copies
    """
    undo = [_global_settings(), global_generators()]
    undo += Walk(contents=contents).over(*owners, *_global_hooks())
    undo += Walk(only_generators=True).over(*generators)
    try:
        yield
    finally:
        for restore in reversed(undo):
            restore()


def global_generators() -> Restore:
    """What puts the global generators of Python, NumPy and torch (CPU and CUDA) back to where they are now."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore


def _global_hooks() -> list[Any]:
    """The tables of the hooks that torch calls for every module."""
    return [value for name, value in vars(torch.nn.modules.module).items() if name.startswith("_global_")]


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _global_settings() -> Restore:
    before = _settings()

    def restore() -> None:
        if _settings() == before:  # some of the setters import a compiler
            return
        torch.set_default_dtype(before["dtype"])
        torch.set_grad_enabled(before["grad"])
        torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn only"])
        for kind in ("cpu", "cuda"):
            torch.set_autocast_enabled(kind, before[f"{kind} autocast"])
            torch.set_autocast_dtype(kind, before[f"{kind} narrow"])

    return restore


def _settings() -> dict[str, Any]:
    autocast = {f"{kind} autocast": torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    narrow = {f"{kind} narrow": torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda")}
    return {
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        **autocast,
        **narrow,
    }
