"""Calls at which a copy that went ahead stops: they would take from the parent, write beside it, or wait for other ranks.

In the parent they do what they always do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data.dataloader import _BaseDataLoaderIter

from chainrule.watch.collectives import COLLECTIVES
from chainrule.watch.patches import Around

ALONE = "the ranks communicate before a backward, and a copy of one process has no others"


class Stops:
    """The patches of one scout.

    is_copy       True in the copy
    stop          called in the copy with the reason why it goes no further; returns only if it is being examined
    loss_reached  called with each loss before a GradScaler scales it
    """

    def __init__(
        self, is_copy: Callable[[], bool], stop: Callable[[str], None], loss_reached: Callable[[Tensor], object]
    ) -> None:
        self._is_copy, self._stop, self._loss_reached = is_copy, stop, loss_reached

    def patches(self) -> list[tuple[Any, str, Around]]:
        """What stands in the place of torch's functions."""
        return [
            (_BaseDataLoaderIter, "__next__", self._stopping("the next batch was fetched before a backward")),
            (torch, "save", self._stopping("a file was written before a backward")),
            (GradScaler, "scale", self._scaled),
            (DistributedDataParallel, "forward", self._alone),
            *((distributed, name, self._without_the_others) for name in COLLECTIVES),
        ]

    def _alone(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """In the copy a model that is replicated over ranks is called by itself: the other ranks are not there."""

        def forward(wrapper: DistributedDataParallel, *args: Any, **kwargs: Any) -> Any:
            return wrapper.module(*args, **kwargs) if self._is_copy() else original(wrapper, *args, **kwargs)

        return forward

    def _without_the_others(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._is_copy():
                self._stop(ALONE)
                raise RuntimeError(ALONE)
            return original(*args, **kwargs)

        return call

    def _stopping(self, reason: str) -> Around:
        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if self._is_copy():
                    self._stop(reason)
                return original(*args, **kwargs)

            return call

        return around

    def _scaled(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """The loss proper is what goes into a GradScaler."""

        def call(scaler: GradScaler, outputs: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(outputs, Tensor):
                self._loss_reached(outputs)
            return original(scaler, outputs, *args, **kwargs)

        return call
