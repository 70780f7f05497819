"""Every tensor operation of eager code, seen above autograd, at the level at which export writes it down.

A mode on torch's PreDispatch key meets each operation before autocast and autograd do, with the tensors that the user's
code holds: linear, layer_norm, cross_entropy_loss are still whole. An operation that export would not keep whole
(reshape, dropout, batch_norm, the casts of autocast) is run by its own C++ parts with the mode on again, so that what is
seen is what eager PyTorch really executes. Nothing is traced and nothing is run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._export.utils import _is_preservable_cia_op
from torch._ops import OpOverload, _pop_mode_from_pre_dispatch, _set_mode_pre_dispatch
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_KEY = torch._C.DispatchKey
COMPOSITE = _KEY.CompositeImplicitAutograd  # the key under which a composite operation has its parts
_AUTOCAST = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA", "xpu": "AutocastXPU", "mps": "AutocastMPS"}
Arguments = tuple[Any, ...]
# What is done with a call: the operation and its arguments in, its output out.
Handle = Callable[[Any, Arguments, dict[str, Any]], Any]


class Calls(SchemaCheckMode):
    """Hands every operation to `handle`, which runs it; `parts` runs a composite one by its parts, each handed on too.

    torch admits three kinds of modes above autograd, and SchemaCheckMode is the one that is meant for eager runs with
    real tensors; its place is taken here, none of its work.
    """

    def __init__(self, handle: Handle) -> None:
        TorchDispatchMode.__init__(self, _KEY.PreDispatch)  # type: ignore[no-untyped-call]
        self._handle = handle
        self.running = False  # True while the user's Python runs, False inside an operation

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would wrap every call in a guard against torch.compile, whose import takes two seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Arguments = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Torch calls this, with the mode off and the Python dispatcher on."""
        self.running = False
        try:
            with torch._C._DisablePythonDispatcher():
                return self._handle(func, args, dict(kwargs or {}))
        finally:
            self.running = True

    def parts(self, op: OpOverload, key: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
        """Run the kernel that the operation has for a composite key, each operation in it handed on."""
        _set_mode_pre_dispatch(self)  # type: ignore[no-untyped-call]
        self.running = True
        try:
            with enable_python_dispatcher():
                return op._op_dk(key, *args, **kwargs)
        finally:
            self.running = False
            _pop_mode_from_pre_dispatch()  # type: ignore[no-untyped-call]

    @contextmanager
    def on(self) -> Iterator[None]:
        """While the block runs, every operation of this thread is handed over."""
        with enable_python_dispatcher(), self:
            self.running = True
            try:
                yield
            finally:
                self.running = False

    @contextmanager
    def off(self) -> Iterator[None]:
        """While the block runs, nothing is handed over."""
        before, self.running = self.running, False
        try:
            with torch._C._DisablePythonDispatcher():
                yield
        finally:
            self.running = before


@cache
def has_kernel(op: OpOverload, key: Any) -> bool:
    """True if the operation has a kernel of its own for a dispatch key."""
    name = op.name()  # type: ignore[no-untyped-call]
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, key))


@cache
def is_taken_apart(op: OpOverload) -> bool:
    """True for an operation that export does not keep whole: composite, and perhaps a view or in place."""
    return has_kernel(op, COMPOSITE) and not _is_preservable_cia_op(op)


def active_autocast(arguments: Any) -> Any | None:
    """The dispatch key of the autocast that is on now for the device of the arguments, or None."""
    tensor = next(tensors_in(arguments), None)
    name = _AUTOCAST.get(tensor.device.type) if tensor is not None else None
    key = getattr(_KEY, name) if name else None
    return None if key is None or torch._C._dispatch_tls_is_dispatch_key_excluded(key) else key


def casts_inside(op: OpOverload, autocast: Any, args: Arguments, kwargs: Mapping[str, Any]) -> bool:
    """True if autocast casts for one of the parts of a composite operation; found by running it on the side."""
    met: list[bool] = []

    def watch(part: Any, args: Arguments, kwargs: dict[str, Any]) -> Any:
        if has_kernel(part, autocast):
            met.append(True)
        elif has_kernel(part, COMPOSITE):
            return mode.parts(part, COMPOSITE, args, kwargs)
        return part(*args, **kwargs)

    mode = Calls(watch)
    with torch.no_grad():
        mode.parts(op, COMPOSITE, args, kwargs)
    return bool(met)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or outputs, lists included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def with_each_tensor(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The arguments with `change` applied to each tensor, lists and dicts included."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(with_each_tensor(item, change) for item in value)
    if isinstance(value, dict):
        return {key: with_each_tensor(item, change) for key, item in value.items()}
    return value
