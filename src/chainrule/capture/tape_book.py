"""What the recorder writes down: leaves, nodes and their values, each under a name of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.nodes import spec_of
from chainrule.capture.tape_places import Places, running_line
from chainrule.graph import Argument, Leaf, LeafKind, Node, Ref, Value, op_name

aten = torch.ops.aten


class Book:
    """Leaves, nodes and values in the order in which they come about.

    flow      what a gradient does at each value: "active", it flows to a trainable leaf; "cut", it would, but the value
              was computed under no_grad; absent, there is nothing for it to flow to
    function  name of the custom autograd.Function whose forward is running, or ""
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.leaves: dict[str, Leaf] = {}
        self.nodes: list[Node] = []
        self.values: dict[str, Value] = {}
        self.flow: dict[str, str] = {}
        self.notes: list[str] = []
        self.function = ""
        self._holders: dict[int, set[Ref]] = {}
        self._counts: dict[str, count[int]] = {}

    def leaf(
        self,
        kind: LeafKind,
        value: Tensor,
        name: str,
        *,
        paths: tuple[str, ...] = (),
        trainable: bool = False,
        recipe: Node | None = None,
        active: bool = False,
    ) -> Ref:
        """A new leaf; `value` is kept as it is now."""
        name = self.name(name)
        recipe = recipe and replace(recipe, name=name)
        self.leaves[name] = Leaf(name, kind, value, paths or (name,), trainable, recipe)
        if active:
            self.flow[name] = "active"
        self.hold(Ref(name), value)
        return Ref(name)

    def node(
        self,
        op: OpOverload,
        arguments: Mapping[str, Argument],
        value: Any,
        *,
        cutting: bool = False,
        requires_grad: bool | None = None,
    ) -> Ref:
        """A new node with its value as it is now, a tuple for an op with several outputs.

        cutting        True where autograd is off: what depends on a trainable leaf is cut from it
        requires_grad  what autograd says of the output, where it is on; None to go by the arguments
        """
        name = self.name(op_name(op))
        node = Node(name, op, arguments, spec_of(value), self.places.stack, running_line(), self.function)
        self.nodes.append(node)
        if requires_grad is None:
            requires_grad = op is not aten.detach.default and any(ref.name in self.flow for ref in node.refs())
        if requires_grad:
            self.flow[name] = "cut" if cutting else "active"
        if isinstance(value, Tensor):
            self.hold(Ref(name), value)
        else:
            self.values[name] = (None,) * len(value)
            for index, item in enumerate(value):
                self.hold(Ref(name, index), item)
        return Ref(name)

    def value(self, ref: Ref) -> Value:
        """What is held for a Ref."""
        value = self.values[ref.name]
        return value if ref.index is None else value[ref.index]

    def hold(self, ref: Ref, value: Any) -> None:
        """Keep the value of `ref`. Its memory is shared until somebody is about to write to it: see `protect`."""
        if isinstance(value, Tensor):
            value = value.detach()
            self._holders.setdefault(memory_of(value), set()).add(ref)
        self._put(ref, value)

    def protect(self, tensor: Tensor) -> None:
        """Give every value that shares memory with the tensor a copy of its own: it is about to be written to."""
        for ref in self._holders.pop(memory_of(tensor), ()):
            self.hold(ref, self.value(ref).clone())

    def name(self, text: str) -> str:
        """An identifier made of the text that no leaf or node has yet."""
        base = re.sub(r"[\W_]+", "_", text).strip("_") or "value"
        counter = self._counts.setdefault(base, count())
        number = next(counter)
        name = base if number == 0 else f"{base}_{number}"
        return name if name not in self.values else self.name(text)

    def kept_leaves(self, used: set[str]) -> dict[str, Leaf]:
        """The leaves with their values: the model's and the batch's, and those of the others that are used."""
        names = [name for name, leaf in self.leaves.items() if name in used or leaf.kind not in ("constant", "random")]
        recipes = [recipe for name in names if (recipe := self.leaves[name].recipe) is not None]
        drawn_from = {ref.name for recipe in recipes for ref in recipe.refs()}
        return {
            name: replace(leaf, value=self.values[name])
            for name, leaf in self.leaves.items()
            if name in drawn_from or name in names
        }

    def _put(self, ref: Ref, value: Value) -> None:
        if ref.index is None:
            self.values[ref.name] = value
        else:
            items = self.values[ref.name]
            self.values[ref.name] = (*items[: ref.index], value, *items[ref.index + 1 :])


def memory_of(tensor: Tensor) -> int:
    """What tells whether two tensors share memory; unique for a tensor without storage (a sparse one)."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return -id(tensor)
