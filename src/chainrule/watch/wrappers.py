"""The DistributedDataParallel wrappers of a program: which gradients each of them averages, and whether it was called."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from chainrule.watch.patches import all_patched, and_then, before


@dataclass(frozen=True)
class Hold:
    """How the parameters of an optimizer are held together over the ranks; the fields are those of `Replica`."""

    wrapped: bool
    hooked: bool
    forwards: int | None
    detached: tuple[str, ...]
    averaged: tuple[str, ...]


class Wrappers:
    """Knows the wrappers that were made while its `followed` block ran.

    A wrapper averages a gradient by a hook on the node that accumulates it. A parameter that is converted to another dtype or
    moved to another device gets a new node; the hook stays on the old one, and nothing says so (pytorch#104336).
    """

    def __init__(self) -> None:
        self._nodes: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()
        self._called: Counter[Any] = Counter()  # wrapper -> its forward passes since the last step
        self._reduced: set[int] = set()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block runs."""
        patches = [
            (DistributedDataParallel, "__init__", and_then(self._made)),
            (DistributedDataParallel, "forward", before(self._forward)),
        ]
        with all_patched(patches):
            yield

    def hold(self, parameters: Mapping[str, tuple[int, Tensor]]) -> Hold:
        """What holds these parameters; the counts begin again."""
        wanted = {id(parameter) for _, parameter in parameters.values()}
        own = [wrapper for wrapper, nodes in self._nodes.items() if wanted & set(nodes)]
        nodes = {key: node for wrapper in own for key, node in self._nodes[wrapper].items()}
        held = Hold(
            wrapped=bool(own),
            hooked=any(getattr(wrapper, "_comm_hooks", ()) for wrapper in own),
            forwards=sum(self._called[wrapper] for wrapper in own) if own else None,
            detached=tuple(path for path, (_, p) in parameters.items() if id(p) in nodes and _other(nodes[id(p)], p)),
            averaged=tuple(
                path
                for path, (_, parameter) in parameters.items()
                if parameter.grad is not None and parameter.grad.data_ptr() in self._reduced
            ),
        )
        self.begin()
        return held

    def begin(self) -> None:
        """A new step begins."""
        self._called.clear()
        self._reduced.clear()

    def reduced(self, tensor: Tensor) -> None:
        """The program has averaged a tensor by itself."""
        self._reduced.add(tensor.data_ptr())

    def _made(self, _: Any, wrapper: DistributedDataParallel, *__: Any, **___: Any) -> None:
        self._nodes[wrapper] = {id(p): accumulator(p) for p in wrapper.parameters() if p.requires_grad}

    def _forward(self, wrapper: DistributedDataParallel, *_: Any, **__: Any) -> None:
        self._called[wrapper] += 1


def accumulator(parameter: Tensor) -> Any:
    """The node that adds to the parameter's gradient; the same object as long as anyone holds it."""
    with torch.enable_grad():
        made = parameter.view_as(parameter).grad_fn
    assert made is not None
    return made.next_functions[0][0]


def _other(node: Any, parameter: Tensor) -> bool:
    return parameter.requires_grad and accumulator(parameter) is not node
