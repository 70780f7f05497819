"""A healthy model of the zoo: a name, and a builder that is deterministic and leaves the global generator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Loss = Callable[[Any, Any], Tensor]
Built = tuple[nn.Module, Loss, Any]


@dataclass(frozen=True)
class ZooModel:
    """A model, its loss and one batch, on which every check must say PASS.

    name    unique in the zoo
    make    draws model and batch from torch's global generator; call `build`, which seeds that and puts it back
    origin  the capture that has to do it: "tape" where torch.export cannot
    double  False if the model itself refuses plain float64 (it mixes in constants of another dtype)
    """

    name: str
    make: Callable[[], Built]
    origin: Literal["export", "tape"] = "export"
    double: bool = True

    def build(self, seed: int = 0) -> Built:
        """(model, loss, batch), the same for the same seed; the global generator is as before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make()

    def __str__(self) -> str:
        return self.name


def tokens(batch: int, length: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """(inputs_BT, targets_BT): random tokens with repeats, targets one ahead."""
    ids_BT = torch.randint(vocabulary, (batch, length + 1))
    return ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()
