"""Samples on which a derivative rule is tested: calls of its op, with arguments by name.

They come from PyTorch's own operator samples (`op_db`), run under a recorder that sees the ops as export does (linear
or softmax stay whole), or one level lower for the ops that are reached only there (`_softmax`).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule.graph import bind_arguments, op_name

torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class Sample:
    """One call of an op: `op(**arguments)`."""

    op: OpOverload
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(f'{name}={_brief(value)}' for name, value in self.arguments.items())})"


def call(op: OpOverload, *args: Any, **kwargs: Any) -> Sample:
    """A sample of one's own, written like a call of the op."""
    return Sample(op, bind_arguments(op, args, kwargs))


def seed() -> None:
    """Make the next random draw the same each time. (torch.manual_seed formats the call stack thrice, for devices.)"""
    torch.default_generator.manual_seed(0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Float64 draws from N(0, 1), the same each time."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def renamed(alias: OpOverload, of: OpOverload) -> list[Sample]:
    """The samples of an op, for another name of it."""
    return [Sample(alias, sample.arguments) for sample in samples_of(of)]


def samples_of(op: OpOverload, own: Iterable[Sample] = (), entries: Iterable[str] = ()) -> list[Sample]:
    """All samples of the op: those of `op_db` entries of its name or in `entries`, and one's own."""
    names = {*_entries_named(op_name(op)), *entries}
    above, below = ([call for name in sorted(names) for call in _recorded(name)[level][op]] for level in (0, 1))
    return (above or below) + [sample for sample in own if sample.op is op]


@cache
def _entries_named(name: str) -> tuple[str, ...]:
    return tuple(sorted({entry.name for entry in op_db if name in _names(entry) and _is_ours(entry)}))


def _is_ours(entry: OpInfo) -> bool:
    return torch.float64 in entry.supported_dtypes("cpu") and not entry.name.startswith("sparse.")


def _names(entry: OpInfo) -> Iterator[str]:
    for name in (entry.name, entry.aten_name, *(alias.name for alias in entry.aliases)):
        yield name.strip("_")
        yield name.replace(".", "_")
        yield name.split(".")[-1]


@cache
def _recorded(name: str) -> tuple[Mapping[OpOverload, list[Sample]], Mapping[OpOverload, list[Sample]]]:
    """Calls that the float64 samples of one `op_db` entry make: as export sees them, and below autograd."""
    entries = [entry for entry in op_db if entry.name == name and _is_ours(entry)]
    if not entries:
        raise LookupError(f"op_db has no float64 entry {name!r}")
    above, below = _Above(), _Below()
    seed()
    with warnings.catch_warnings(action="ignore"):  # of torch's own, about its own samples
        for entry in entries:
            for drawn in entry.sample_inputs_func(entry, "cpu", torch.float64, requires_grad=True):
                sample = drawn.transform(lambda value: value.detach() if isinstance(value, torch.Tensor) else value)
                seed()
                with enable_python_dispatcher(), below, above:
                    entry.op(sample.input, *sample.args, **sample.kwargs)
    return above.calls, below.calls


class _Below(TorchDispatchMode):
    """Records every call that reaches a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: defaultdict[OpOverload, list[Sample]] = defaultdict(list)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func].append(call(func, *args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


class _Above(SchemaCheckMode):
    """Records every call before autograd takes composites apart.

    Of the modes that torch admits there, `SchemaCheckMode` is the one that runs eagerly.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dispatch_key = torch._C.DispatchKey.PreDispatch
        self.calls: defaultdict[OpOverload, list[Sample]] = defaultdict(list)

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func].append(call(func, *args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_brief, value))})"
    return repr(value)
