"""Nothing of the user's changes: what running a model may touch is written down first and put back afterwards.

Running `loss(model, batch)`, and exporting it even more, leaves traces: activations kept in attributes, lists that
hooks append to, counters, generators that moved, gradients. `preserved` walks what is reachable from the model, the
loss and the batch, saves each container, attribute table and generator, and restores them in place, so that identities
stay too.

Not restored: what a consumed iterator has given out, and whatever lies outside the process (files, sockets).
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
    contents    save and restore the numbers in parameters too; False where the block runs on fake tensors or on copies
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
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = _deterministic()
    autocast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")}

    def restore() -> None:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if _deterministic() != deterministic:  # to set it imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        for kind, (enabled, narrow) in autocast.items():
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, narrow)

    return restore
