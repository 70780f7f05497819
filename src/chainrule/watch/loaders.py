"""DataLoaders of an observed loop: their epochs and batches, each batch known by a fingerprint of some of its numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from chainrule.capture.batches import tensors_of
from chainrule.watch.names import Names
from chainrule.watch.patches import all_patched, and_then

SAMPLED = 256  # numbers of each tensor of a batch that make its fingerprint
KEPT_BATCHES = 4  # one each of so many loaders: a program may make a new one in every epoch
GOLDEN = 0.6180339887498949  # spreads the sampled places: images have dark borders, sequences begin alike


class Loaders:
    """Says `epoch` when a loader is begun and `batch` for what it gives."""

    def __init__(self, names: Names, say: Callable[..., None]) -> None:
        self._names, self._say = names, say
        self._of: dict[int, tuple[str, Any]] = {}  # iterator -> name of its loader; kept, so that its id stays its own
        self._last: dict[str, Any] = {}  # name of a loader -> its last batch

    @property
    def last(self) -> tuple[Any, ...]:
        """The batch that each loader gave last, of the loaders that gave one last."""
        return tuple(self._last.values())

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        with all_patched(
            [
                (DataLoader, "__iter__", and_then(self._begun)),
                (_BaseDataLoaderIter, "__next__", and_then(self._given)),
            ]
        ):
            yield

    def _begun(self, iterator: Any, loader: DataLoader[Any]) -> None:
        name = self._names.of(loader)
        self._of = {key: value for key, value in self._of.items() if value[0] != name}
        self._of[id(iterator)] = (name, iterator)
        sampler = getattr(loader, "sampler", None)
        self._say(
            "epoch",
            name,
            length=_length(loader),
            batch_size=loader.batch_size,
            workers=loader.num_workers,
            drop_last=bool(loader.drop_last),
            shuffled=not isinstance(sampler, SequentialSampler) and not isinstance(loader.dataset, IterableDataset),
        )

    def _given(self, batch: Any, iterator: Any) -> None:
        name, _ = self._of.get(id(iterator), ("", None))
        if name:
            self._last.pop(name, None)
            self._last = dict([*self._last.items(), (name, batch)][-KEPT_BATCHES:])
            tensors = tensors_of(batch)
            size = next((int(t.shape[0]) for t in tensors.values() if t.dim()), None)
            self._say("batch", name, fingerprint=fingerprint(batch), size=size)


def fingerprint(batch: Any) -> str:
    """A short text that is the same for two batches that have the same numbers at 256 places spread over each tensor."""
    digest = hashlib.blake2b(digest_size=8)
    for place, tensor in tensors_of(batch).items():
        digest.update(f"{place}{tuple(tensor.shape)}".encode())
        if tensor.device.type == "cpu" and tensor.layout is torch.strided:
            digest.update(repr(_sampled(tensor.detach().flatten()).tolist()).encode())
    return digest.hexdigest()


def _sampled(numbers: Tensor) -> Tensor:
    """All of a short one; of a long one those at the places frac(i · golden ratio)."""
    if numbers.numel() <= SAMPLED:
        return numbers
    places = torch.arange(SAMPLED, dtype=torch.float64).mul_(GOLDEN).frac_().mul_(numbers.numel())
    return numbers[places.long()]


def _length(loader: DataLoader[Any]) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
