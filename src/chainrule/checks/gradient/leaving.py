"""Where a value that carries a gradient leaves torch in an eager run: item, numpy, tolist, float, .data, torch.tensor."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from chainrule.capture.provenance import is_user_frame
from chainrule.graph import Source

_NAMES = {"item", "tolist", "numpy", "__array__", "__float__", "tensor", "as_tensor", "detach", "__get__"}
_WORDS = {"__float__": "float()", "__array__": "numpy()", "__get__": ".data", "tensor": "torch.tensor()"}


@dataclass(frozen=True)
class Exit:
    """One call by which a value left its graph."""

    what: str
    source: Source


class Exits(TorchFunctionMode):
    """While it is on, each call that takes a value out of its graph is written down, at the user's line."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Source, Exit] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch calls this for every torch function."""
        name = _name(func)
        if name in _NAMES and any(_carries(arg) for arg in args):
            source = _line(sys._getframe(1))
            if source is not None:
                self.found.setdefault(source, Exit(_WORDS.get(name, f"{name}()"), source))
        return func(*args, **(kwargs or {}))


def exits_of(run: Callable[[], object]) -> list[Exit]:
    """The places at which a value with a gradient leaves torch while run() runs, in order; a mere detach comes last."""
    with Exits() as exits:
        run()
    return sorted(exits.found.values(), key=lambda exit_: exit_.what == "detach()")


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "")
    if name == "__get__":  # of a property: only .data leaves the graph
        return name if getattr(func, "__self__", None) is vars(torch._C.TensorBase).get("data") else ""
    return str(name)


def _carries(arg: object) -> bool:
    if isinstance(arg, (list, tuple)):
        return any(_carries(item) for item in arg)
    return isinstance(arg, Tensor) and arg.requires_grad and not arg.is_leaf


def _line(frame: FrameType | None) -> Source | None:
    for caller in _callers(frame):
        if is_user_frame(caller):
            file, line = caller.f_code.co_filename, caller.f_lineno
            return Source(file, line, linecache.getline(file, line).strip())
    return None


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
