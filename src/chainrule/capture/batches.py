"""The tensors of a batch of any shape, each with its place, and the same batch around other tensors.

Mappings, sequences, dataclasses and other objects with attributes are entered, and copied where a tensor in them is
replaced, so that `loss(model, batch)` meets its own types (a `BatchEncoding`, a dataclass with methods). Nothing is
iterated that iterating would consume.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor

Replace = Callable[[Tensor], Any]


def tensors_of(batch: Any) -> dict[str, Tensor]:
    """Each tensor of the batch by its place: "[0]", "['input_ids']", ".x['y'][1]"; "" if the batch is a tensor."""
    return dict(_walk(batch, "", {}))


def with_tensors(batch: Any, replace: Replace) -> Any:
    """The batch with each tensor replaced by `replace(tensor)`; containers are copied, everything else is shared."""
    return _rebuild(batch, replace, {})


def _walk(value: Any, place: str, seen: dict[int, Any]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif id(value) not in seen:  # a container that is met twice is entered once, as in `_rebuild`
        seen[id(value)] = value
        for key, item in _members(value):
            yield from _walk(item, place + key, seen)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """(place inside the container, item) of each member of a container; nothing for anything else."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None)
        yield from ((f".{names[i]}" if names else f"[{i}]", item) for i, item in enumerate(value))
    elif _is_record(value):
        yield from ((f".{name}", item) for name, item in _attributes(value))


def _is_record(value: Any) -> bool:
    """True for an object that holds its data in attributes and is not code, a module or a class."""
    if isinstance(value, type) or callable(value):
        return False
    return dataclasses.is_dataclass(value) or (type(value).__module__ != "builtins" and hasattr(value, "__dict__"))


def _attributes(value: Any) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):  # may have slots in place of a __dict__
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return list(vars(value).items())


def _rebuild(value: Any, replace: Replace, seen: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return replace(value)
    if id(value) in seen:
        return seen[id(value)]
    if not tensors_of(value):
        return value
    if isinstance(value, tuple):
        items = [_rebuild(item, replace, seen) for item in value]
        seen[id(value)] = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return seen[id(value)]
    twin = seen[id(value)] = copy.copy(value)
    if isinstance(value, MutableMapping):
        for key, item in value.items():
            twin[key] = _rebuild(item, replace, seen)
    elif isinstance(value, list):
        twin[:] = [_rebuild(item, replace, seen) for item in value]
    else:
        for name, item in _attributes(value):
            object.__setattr__(twin, name, _rebuild(item, replace, seen))  # a frozen dataclass too
    return twin
