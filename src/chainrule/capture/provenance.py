"""Which of the user's lines, and which custom `autograd.Function`, is running: for the nodes made meanwhile."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from traceback import FrameSummary, StackSummary, walk_tb
from types import FrameType
from typing import Any

import torch
from torch.fx import proxy as fx_proxy
from torch.overrides import TorchFunctionMode

from chainrule.capture.nodes import FUNCTION_FRAME, NO_GRAD_BLOCK, NO_GRAD_FRAME
from chainrule.graph import Source

_TORCH = os.path.dirname(torch.__file__)
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_MODELS = os.path.join(_OURS, "models") + os.sep  # our models are read like the user's own
_STDLIB = sysconfig.get_paths()["stdlib"]
_APPLY = vars(torch.autograd.function.Function)["apply"].__func__.__code__


@cache
def is_user_file(file: str) -> bool:
    """True unless the file belongs to torch, to chainrule or to Python's own library, or was generated."""
    if file.startswith(("<eval_with_key>", "<frozen ", "<string>")):
        return False
    if file.startswith(_MODELS):
        return True
    inside = [folder for folder in (_TORCH, _OURS, _STDLIB) if file.startswith(folder + os.sep)]
    return not inside or (inside == [_STDLIB] and "site-packages" in file)


def is_user_frame(frame: FrameType) -> bool:
    """True if the frame runs code of the user's, `python -c` included."""
    file = frame.f_code.co_filename
    return is_user_file(file) or (file == "<string>" and frame.f_globals.get("__name__") == "__main__")


def is_own_file(file: str) -> bool:
    """True for a user's file that is no installed library's."""
    return is_user_file(file) and "site-packages" not in file and "dist-packages" not in file


def line_of(error: BaseException) -> Source | None:
    """The user's innermost line in an error's traceback, or in that of the error that caused it."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in causes:
        for frame, line in reversed([*walk_tb(cause.__traceback__)]):
            if is_user_frame(frame):
                file = frame.f_code.co_filename
                return Source(file, line, linecache.getline(file, line).strip())
    return None


def running_function(frame: FrameType | None) -> str:
    """Name of the innermost custom `autograd.Function` whose `apply` is among the frame and its callers, or "".

    Functions of torch itself (activation checkpointing) do not count.
    """
    while frame is not None:
        if frame.f_code is _APPLY and not frame.f_locals["cls"].__module__.startswith("torch."):
            return str(frame.f_locals["cls"].__name__)
        frame = frame.f_back
    return ""


def _in_function(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back
    return False


class GradMode(TorchFunctionMode):
    """Follows the user's own no_grad blocks, also where autograd turns gradients off for the forward of a Function."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = torch.is_grad_enabled()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Torch calls this for every torch function."""
        if func is torch._C._set_grad_enabled and not _in_function(sys._getframe(1)):
            self.enabled = args[0]
        return func(*args, **(kwargs or {}))


class UserFrames:
    """In place of fx's `CapturedTraceback`: the user's innermost frame alone, and what runs around it.

    fx itself keeps only frames called "forward", which loses the loss function and every helper. A custom Function and
    a no_grad block are written down as frames too: the stack trace is what survives every later pass.
    """

    def __init__(self, grad_mode: GradMode) -> None:
        self._grad_mode = grad_mode

    def extract(self, **_: Any) -> UserFrames:
        """fx calls this and then `summary`."""
        return self

    def summary(self) -> StackSummary:
        """The frames as fx writes them into the stack trace of a node that is made now."""
        # No variable may hold this frame itself: the cycle would keep tensors alive that export expects to be gone.
        source = _innermost(sys._getframe())
        if source is None:  # no code of the user's is running: a pass over a graph
            return StackSummary()
        frames = [FrameSummary(source.f_code.co_filename, source.f_lineno, source.f_code.co_name)]
        if name := running_function(sys._getframe()):
            frames.append(FrameSummary(FUNCTION_FRAME, 0, name, line=""))
        if not self._grad_mode.enabled or torch.is_inference_mode_enabled():
            frames.append(FrameSummary(NO_GRAD_FRAME, 0, NO_GRAD_BLOCK, line=""))
        return StackSummary.from_list(frames)


def _innermost(frame: FrameType | None) -> FrameType | None:
    """The user's innermost frame, below the call of our own that started to run their code."""
    while frame is not None:
        if is_user_frame(frame):
            return frame
        if frame.f_code.co_name == "forward" and frame.f_code.co_filename.startswith(_OURS):
            return None
        frame = frame.f_back
    return None


@contextmanager
def user_frames(grad_mode: GradMode) -> Iterator[None]:
    """While fx traces, the stack traces of its nodes are those of `UserFrames`."""
    capturing, filtering = vars(fx_proxy)["CapturedTraceback"], fx_proxy.TracerBase._filter_traceback_frames
    setattr(fx_proxy, "CapturedTraceback", UserFrames(grad_mode))  # noqa: B010  (mypy knows them as class and method)
    setattr(fx_proxy.TracerBase, "_filter_traceback_frames", lambda _, summary: summary)  # noqa: B010
    try:
        yield
    finally:
        setattr(fx_proxy, "CapturedTraceback", capturing)  # noqa: B010
        setattr(fx_proxy.TracerBase, "_filter_traceback_frames", filtering)  # noqa: B010
