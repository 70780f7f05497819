"""This process among the ranks of a distributed run: what a rank says of itself, kept where the others can read it.

It is kept in the key-value store by which the processes found each other, under keys of our own. Reading asks whether a key
is there and never waits for it, and no collective is called: the program's own communication stays as it is. A rank that
is gone, or a store that does not answer, makes the others silent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

T = TypeVar("T")


class Ranks:
    """The ranks as this one sees them; `world` is 1 until the program has made its process group.

    alone   never look at the others, whatever the program does
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.rank, self.world = 0, 1
        self._alone = alone
        self._store: Any = None
        self._process = 0

    @property
    def several(self) -> bool:
        """True if this process is one of several that train together; a copy of it made by `fork` is not."""
        if self.world == 1 and not self._alone and distributed.is_available() and distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
            self._process = os.getpid()
            self._store = self._try(lambda: PrefixStore("chainrule", _get_default_store()), None)
        return self.world > 1 and self._store is not None and self._process == os.getpid()

    def say(self, key: str, thing: Any) -> None:
        """Leave something JSON-able under a key for the others."""
        self._try(lambda: self._store.set(f"{key}/{self.rank}", json.dumps(thing)), None)

    def heard(self, key: str) -> dict[int, Any]:
        """rank -> what it has said under the key, of those that have, this one among them."""
        return {rank: json.loads(said) for rank in range(self.world) if (said := self._read(f"{key}/{rank}"))}

    def first(self, key: str) -> bool:
        """True for the first rank that asks, and where there is only one."""
        return not self.several or self._try(lambda: int(self._store.add(key, 1)) == 1, True)

    def _read(self, key: str) -> bytes | None:
        return self._try(lambda: self._store.get(key) if self._store.check([key]) else None, None)

    def _try(self, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except (
            RuntimeError,
            ValueError,
            AttributeError,
        ):  # torch's DistStoreError among them; None once it was given up
            self._store = None
            return otherwise
