"""Where in the user's code the run is now: the modules around it and the innermost line outside torch."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from chainrule.capture.nodes import LOSS_PATH
from chainrule.capture.provenance import is_user_file
from chainrule.graph import Source


class Places:
    """The stack of running modules and the running line.

    root  the `LossModule`: paths are those of its model; a loss that is a module has the path "(loss)"
    """

    def __init__(self, root: nn.Module) -> None:
        self._paths: dict[int, list[str]] = {}
        for name, module in root.named_modules(remove_duplicate=False):
            if (path := _path(name)) is not None:
                self._paths.setdefault(id(module), []).append(path)
        self._running: list[tuple[str, str] | None] = []

    @property
    def stack(self) -> tuple[tuple[str, str], ...]:
        """(path, class name) of the modules whose forward is running, outermost first."""
        return tuple(module for module in self._running if module is not None)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs, calls of modules are followed; afterwards no hook is left."""
        enter = register_module_forward_pre_hook(self._enter)
        leave = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def _enter(self, module: nn.Module, _: Any) -> None:
        path = self._path(module)
        self._running.append(None if path is None else (path, type(module).__name__))

    def _leave(self, *_: Any) -> None:
        self._running.pop()

    def _path(self, module: nn.Module) -> str | None:
        """The module's path; of one that is used in several places, the path below the module that is running."""
        paths = self._paths.get(id(module), [])
        around = next((running[0] for running in reversed(self._running) if running is not None), "")
        return next((path for path in paths if path.startswith(f"{around}.")), paths[0] if paths else None)


def running_line() -> Source | None:
    """The innermost frame of the running code that is the user's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if is_user_file(file):
            return Source(file, frame.f_lineno, linecache.getline(file, frame.f_lineno, frame.f_globals).strip())
        frame = frame.f_back
    return None


def _path(name: str) -> str | None:
    """A module's path in the model, by its name in the LossModule; None for the LossModule itself."""
    owner, _, rest = name.partition(".")
    if owner == "model":
        return rest
    return None if not owner else ".".join(part for part in (LOSS_PATH, rest) if part)
