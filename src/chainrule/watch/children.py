"""The processes that a program starts: each runs its target inside of something that watches it, too."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from chainrule.watch.patches import Around, all_patched

# Where the targets of workers are defined that belong to a library: of a DataLoader, of a pool, of a manager.
OF_LIBRARIES = ("torch.utils.data", "multiprocessing", "concurrent", "joblib")


class Children:
    """While its `followed` block runs, each process that is started runs `wrap(target, folder)` in the place of its target.

    What a child leaves in the folder by `leave` is what `left` gives back.
    """

    def __init__(self, wrap: Callable[[Callable[..., Any], str], Callable[..., Any]]) -> None:
        self._wrap = wrap
        self._folder = ""

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        with all_patched([(BaseProcess, "start", self._around_start)]):
            yield

    def left(self) -> list[Any]:
        """What the children have left so far, in the order of what they left; the folder is removed."""
        files = sorted(Path(self._folder).glob("*.pickle")) if self._folder else []
        things = [pickle.loads(file.read_bytes()) for file in files]
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        return things

    def _around_start(self, original: Around) -> Callable[..., Any]:
        def start(process: Any) -> None:
            target = process._target
            if target is None or str(getattr(target, "__module__", "")).startswith(OF_LIBRARIES):
                original(process)
                return
            self._folder = self._folder or tempfile.mkdtemp(prefix="chainrule-")
            process._target = self._wrap(target, self._folder)
            try:
                original(process)
            finally:
                process._target = target

        return start


def leave(folder: str, rank: int, thing: Any) -> None:
    """In a child: something picklable for the parent; written at once, so that the parent never reads a half of it."""
    unfinished = Path(folder, f"{os.getpid()}.part")
    try:
        unfinished.write_bytes(pickle.dumps(thing))
        unfinished.rename(Path(folder, f"{rank:05d}-{os.getpid()}.pickle"))
    except (OSError, pickle.PicklingError):  # the parent has gone, and with it the folder
        return
