"""The state of every global random generator that a model may draw from: torch, CUDA, NumPy, Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
Snapshot = tuple[torch.Tensor, list[torch.Tensor], Any, Any]


def snapshot() -> Snapshot:
    """All states as they are, in some microseconds: for a step that may have to be taken again."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda, np.random.get_state(legacy=False), random.getstate()


def restore(before: Snapshot) -> None:
    """Set every generator to what `snapshot` returned."""
    cpu, cuda, numpy_state, python = before
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy_state)
    random.setstate(python)


def random_state() -> State:
    """All states as JSON-able data, for a checkpoint."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    return {
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "python": [version, list(words), gauss],
    }


def restore_random_state(state: State) -> None:
    """Set every generator to what `random_state` returned."""
    torch.set_rng_state(_tensor(state["torch"]))
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_tensor(one) for one in state["cuda"]])
    numpy_state = state["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


@contextmanager
def preserved_randomness() -> Iterator[None]:
    """Leave all generators as they were before the block."""
    before = snapshot()
    try:
        yield
    finally:
        restore(before)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Make torch refuse operations whose result depends on the order of threads, while in the block, if wanted."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def seed_everything(seed: int) -> None:
    """Seed the global generators; data and samples have their own."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _hex(state: torch.Tensor) -> str:
    return state.numpy().tobytes().hex()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
