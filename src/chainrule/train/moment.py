"""Random states and buffers at one moment: a forward pass moves both, and one that does not count must leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chainrule.train.randomness import Snapshot, restore, snapshot


@dataclass(frozen=True)
class Moment:
    """What `restore` brings back: dropout masks to come, and running statistics such as batch norm's."""

    random: Snapshot
    buffers: tuple[tuple[Tensor, Tensor], ...]

    @torch.no_grad()
    def restore(self) -> None:
        """Bring it all back; may be called again."""
        restore(self.random)
        for buffer, value in self.buffers:
            buffer.copy_(value)


def moment(model: nn.Module) -> Moment:
    """Now. Buffers are copied: some microseconds, since they are few and small."""
    return Moment(snapshot(), tuple((buffer, buffer.clone()) for buffer in model.buffers()))


@contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """Leave random states and buffers as they were before the block."""
    before = moment(model)
    try:
        yield
    finally:
        before.restore()
