"""Walks over what is reachable from an object and saves, of each thing that can change, how it is now."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, Sampler

from chainrule.capture.provenance import is_own_file, is_user_file

Restore = Callable[[], None]
_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, types.ModuleType)
_STATEFUL = (
    Tensor,
    nn.Module,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    torch.amp.GradScaler,
    types.SimpleNamespace,
    UserDict,
    UserList,
    functools.partial,
)
_DATA = (DataLoader, Dataset, Sampler)  # large, and not changed by a model: only their generators are saved
_LARGE = 2**28  # bytes; a larger array is data
_LONG = 10_000  # items of a longer container are data: it is saved, but its items are not walked


class Walk:
    """One walk: `over` returns what restores everything that it met.

    contents         save the numbers in parameters and in tensors of more than 256 MB too; others are saved in any case
    only_generators  save random generators alone (for a data set, whose data nobody changes)
    """

    def __init__(self, *, contents: bool = False, only_generators: bool = False) -> None:
        self.contents, self.only_generators = contents, only_generators
        self._seen: dict[int, Any] = {}  # keeps the objects alive, so that an id stays theirs
        self._undo: list[Restore] = []

    def over(self, *roots: Any) -> list[Restore]:
        """Walk from the roots; call what is returned, in any order, to restore."""
        stack = list(roots)
        while stack:
            item = stack.pop()
            if isinstance(item, _ATOMS) or id(item) in self._seen:
                continue
            self._seen[id(item)] = item
            restore = generator_state(item)
            if restore is None and not self.only_generators:
                restore = self._state(item)
            if restore is not None:
                self._undo.append(restore)
            if isinstance(item, _DATA) and not self.only_generators:
                self._undo += Walk(only_generators=True).over(item)
            else:
                stack.extend(self._parts(item))
        return self._undo

    def _state(self, item: Any) -> Restore | None:
        if isinstance(item, dict):
            return _dict_state(item)
        if isinstance(item, (list, deque, set)):
            return _container_state(item)
        if isinstance(item, Tensor) and item.layout is torch.strided and not is_lazy(item) and not item.is_meta:
            large = isinstance(item, nn.Parameter) or item.nbytes > _LARGE
            return _tensor_state(item, self.contents or not large)
        if isinstance(item, np.ndarray) and item.flags.writeable and item.nbytes <= _LARGE:
            return functools.partial(np.copyto, item, item.copy())
        if isinstance(item, types.CellType):
            return _cell_state(item)
        if isinstance(item, types.FunctionType) and is_own_file(item.__code__.co_filename):
            return _bindings_state(item)
        return None

    def _parts(self, item: Any) -> Iterable[Any]:
        parts = _parts(item)
        if parts is None:
            return [*_attributes(item), type(item)] if self.only_generators or _holds_state(item) else ()
        return parts


def generator_state(item: Any) -> Restore | None:
    """What puts a random generator back to where it is now; None if the item is none."""
    if isinstance(item, (torch.Generator, np.random.RandomState)):
        return _setter(item.set_state, item.get_state())
    if isinstance(item, np.random.Generator):
        return functools.partial(setattr, item.bit_generator, "state", item.bit_generator.state)
    if isinstance(item, random.Random):
        return _setter(item.setstate, item.getstate())
    return None


def _setter(put: Callable[[Any], Any], state: Any) -> Restore:
    def restore() -> None:
        put(state)

    return restore


def _parts(item: Any) -> Iterable[Any] | None:
    """What a container, a function or a class holds; None for any other object."""
    if isinstance(item, dict):
        return list(item.values()) if len(item) <= _LONG else ()
    if isinstance(item, (list, tuple, set, frozenset, deque)):
        return list(item) if len(item) <= _LONG else ()
    if isinstance(item, types.FunctionType):
        return [*(item.__closure__ or ()), item.__defaults__, item.__kwdefaults__, *_global_values(item)]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, functools.partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, types.CellType):
        return [item.cell_contents] if _is_filled(item) else ()
    if isinstance(item, type):
        return _class_parts(item)
    if isinstance(item, Tensor):
        return [item.grad, *_attributes(item)] if item.is_leaf else ()
    return None


def _holds_state(item: Any) -> bool:
    """True if the object's attributes are walked: not those of torch's and Python's own, whose threads use them too."""
    return isinstance(item, _STATEFUL) or is_user_file(_file_of(type(item)))


def _attributes(item: Any) -> list[Any]:
    """An object's attribute table, and what it keeps in slots."""
    try:
        table = [object.__getattribute__(item, "__dict__")]
    except AttributeError:
        table = []
    slots = [name for kind in type(item).__mro__ for name in _slots(kind)]
    return table + [getattr(item, name, None) for name in slots]


def _slots(kind: type) -> tuple[str, ...]:
    if not is_own_file(_file_of(kind)):
        return ()
    names = kind.__dict__.get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)


def _class_parts(kind: type) -> Iterator[Any]:
    """Containers that are class attributes, and the functions of the class, if the user wrote it."""
    if is_own_file(_file_of(kind)):
        for value in list(vars(kind).values()):
            if isinstance(value, (list, dict, set, deque, types.FunctionType)):
                yield value
            elif isinstance(value, (staticmethod, classmethod)):
                yield value.__func__
    yield from kind.__bases__


def _file_of(kind: type) -> str:
    """The file that defines a class; Python's interactive session counts as the user's file."""
    module = sys.modules.get(kind.__module__)
    return getattr(module, "__file__", None) or ("<stdin>" if kind.__module__ == "__main__" else "<frozen module>")


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _bound_names(function: types.FunctionType) -> list[str]:
    return [name for name in set(_names_in(function.__code__)) if name in function.__globals__]


def _global_values(function: types.FunctionType) -> list[Any]:
    """The global containers, objects and functions that a function of the user's names."""
    if not is_own_file(function.__code__.co_filename):
        return []
    return [function.__globals__[name] for name in _bound_names(function)]


def _bindings_state(function: types.FunctionType) -> Restore:
    table = function.__globals__
    saved = {name: table[name] for name in _bound_names(function)}
    return lambda: table.update({name: value for name, value in saved.items() if table.get(name) is not value})


def _dict_state(table: dict[Any, Any]) -> Restore:
    saved = list(table.items())
    kind = OrderedDict if isinstance(table, OrderedDict) else dict  # past the class's own __setitem__

    def restore() -> None:
        now = list(table.items())
        if len(now) != len(saved) or any(a is not c or b is not d for (a, b), (c, d) in zip(now, saved, strict=True)):
            kind.clear(table)
            kind.update(table, saved)

    return restore


def _container_state(container: Any) -> Restore:
    saved = list(container)

    def restore() -> None:
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(saved)

    return restore


def _cell_state(cell: types.CellType) -> Restore | None:
    if not _is_filled(cell):
        return None
    return functools.partial(setattr, cell, "cell_contents", cell.cell_contents)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _tensor_state(tensor: Tensor, contents: bool) -> Restore:
    """Flags, gradient and storage, and with `contents` the numbers."""
    grad = tensor.grad if tensor.is_leaf else None
    flag, data = tensor.requires_grad, tensor.data
    copy = data.clone() if contents else None

    def restore() -> None:
        if tensor.data.is_set_to(data) is False:
            tensor.data = data
        # Compared, as batch norm changes its statistics without counting; and the memory may be a file's, not writable.
        if copy is not None and not torch.equal(copy, data):
            data.copy_(copy)
        if tensor.is_leaf:
            tensor.grad = grad
            tensor.requires_grad_(flag)

    return restore
