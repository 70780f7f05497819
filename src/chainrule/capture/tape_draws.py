"""Randomness in the run becomes data: what was drawn is a leaf, with the recipe by which it can be drawn again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.capture.nodes import RECURRENT, is_random, spec_of
from chainrule.capture.tape_book import Book
from chainrule.capture.tape_calls import COMPOSITE, Arguments, has_kernel, tensors_in
from chainrule.capture.tape_memory import Memory
from chainrule.capture.tape_places import running_line
from chainrule.errors import CaptureError
from chainrule.graph import Argument, Node, Ref, bind_arguments, op_name, refs_in

aten = torch.ops.aten
_PLAIN = frozenset({aten.dropout.default, aten.dropout_.default})
_DROPOUTS = _PLAIN | {
    packet.default
    for packet in (
        *(aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout),
        *(aten.feature_dropout_, aten.alpha_dropout_, aten.feature_alpha_dropout_),
    )
}
_ATTENTIONS = frozenset({aten.scaled_dot_product_attention.default, aten._scaled_dot_product_attention_math.default})
_UNINITIALISED = frozenset(
    {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default}
)  # memory for a mask
# Draws through which a gradient flows; as a leaf they would cut it.
_PATHWISE = frozenset({aten._standard_gamma.default, aten._sample_dirichlet.default})


def refuse(op: OpOverload) -> NoReturn:
    """Raise CaptureError: a gradient flows through this draw."""
    raise CaptureError(
        f"{running_line()}: {op_name(op)} draws numbers that depend smoothly on its input; "
        "chainrule cannot hold such a draw fixed. Take it out for the check, or draw it outside the model"
    )


class Draws:
    """The random numbers of the run. Inside a dropout, whatever is made of random numbers alone belongs to its mask."""

    def __init__(self, book: Book, memory: Memory) -> None:
        self._book, self._memory = book, memory
        self._dropout: tuple[OpOverload, Mapping[str, Any]] | None = None
        self._mask: dict[int, Tensor] = {}

    @contextmanager
    def around(
        self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]
    ) -> Iterator[tuple[Arguments, dict[str, Any]]]:
        """While the operation runs; yields its arguments, with dropout off where its mask cannot be seen."""
        if op in _DROPOUTS:
            before = self._dropout, self._mask
            self._dropout, self._mask = (op, bind_arguments(op, args, kwargs)), {}
            try:
                yield args, kwargs
            finally:
                self._dropout, self._mask = before
        elif op in RECURRENT or op in _ATTENTIONS:
            yield self._without_hidden_dropout(op, args, kwargs)
        else:
            yield args, kwargs

    def inside(self, op: OpOverload, args: Arguments, kwargs: Mapping[str, Any]) -> bool:
        """True for a composite operation that draws inside: it is run by its parts."""
        if op in _ATTENTIONS:
            return bool(bind_arguments(op, args, kwargs)["dropout_p"])
        return is_random(op) and has_kernel(op, COMPOSITE)

    def makes_mask(self, op: OpOverload, arguments: Any) -> bool:
        """True for an operation inside a dropout that takes nothing but random numbers."""
        if self._dropout is None:
            return False
        tensors = list(tensors_in(arguments))
        return op in _UNINITIALISED or (bool(tensors) and all(id(tensor) in self._mask for tensor in tensors))

    def made(self, output: Any) -> Any:
        """Keep the output of such an operation in mind, and hand it on."""
        self._mask.update((id(tensor), tensor) for tensor in tensors_in(output))
        return output

    def settle(self, tensor: Tensor) -> None:
        """A tensor is about to be used: if it is a finished mask, it becomes a leaf now."""
        if id(tensor) in self._mask and self._memory.find(tensor) is None:
            self._memory.add(tensor, self._leaf("dropout_mask", tensor, self._dropout_recipe(tensor)))

    def leaf(self, op: OpOverload, arguments: Mapping[str, Argument], drawn: Tensor) -> Ref:
        """A leaf for what one random operation drew. Raises CaptureError where a gradient would flow through the draw."""
        if op in _PATHWISE:
            refuse(op)
        return self._leaf(op_name(op), drawn, self._recipe(op, self._constants(arguments), drawn))

    def fused_dropout(self, bound: Mapping[str, Any], source: Ref, output: Any) -> None:
        """native_dropout(x) = x · mask / (1 - p), with the mask that the kernel drew."""
        dropped, kept = output
        scale = 0.0 if bound["p"] == 1 else 1 / (1 - bound["p"])
        mask = kept.to(dropped.dtype) * (scale if bound["train"] in (None, True) else 1.0)
        leaf = self._leaf("dropout_mask", mask, self._recipe_of_ones(mask, bound["p"]))
        arguments = bind_arguments(aten.mul.Tensor, (source, leaf), {})
        self._memory.add(dropped, self._book.node(aten.mul.Tensor, arguments, dropped))
        self._memory.add(kept, self._leaf(f"{leaf.name}_kept", kept, None))

    def _leaf(self, name: str, drawn: Tensor, recipe: Node | None) -> Ref:
        return self._book.leaf("random", drawn.clone(), name, recipe=recipe)

    def _recipe(self, op: OpOverload, arguments: dict[str, Argument], drawn: Tensor) -> Node:
        return Node(op_name(op), op, arguments, spec_of(drawn), self._book.places.stack, running_line())

    def _constants(self, arguments: Mapping[str, Argument]) -> dict[str, Argument]:
        """The arguments with a constant leaf in place of each value of the graph."""
        constants = {
            ref: self._book.leaf("constant", self._book.value(ref), f"{ref.name}_drawn_from")
            for argument in arguments.values()
            for ref in refs_in(argument)
        }

        def constant(argument: Argument) -> Argument:
            if isinstance(argument, tuple):
                return tuple(constant(item) for item in argument)
            return constants[argument] if isinstance(argument, Ref) else argument

        return {name: constant(argument) for name, argument in arguments.items()}

    def _dropout_recipe(self, mask: Tensor) -> Node | None:
        assert self._dropout is not None
        op, bound = self._dropout
        return self._recipe_of_ones(mask, bound["p"]) if op in _PLAIN else None

    def _recipe_of_ones(self, mask: Tensor, p: float) -> Node:
        """mask = dropout(1)."""
        ones = self._book.leaf("constant", torch.ones_like(mask), "ones")
        return self._recipe(aten.dropout.default, bind_arguments(aten.dropout.default, (ones, p, True), {}), mask)

    def _without_hidden_dropout(
        self, op: OpOverload, args: Arguments, kwargs: dict[str, Any]
    ) -> tuple[Arguments, dict[str, Any]]:
        bound = bind_arguments(op, args, kwargs)
        name = "dropout" if op in RECURRENT else "dropout_p"
        tensor = next(tensors_in(args))
        if not bound[name] or not bound.get("train", True) or (op in _ATTENTIONS and tensor.device.type == "cpu"):
            return args, kwargs
        where = ".".join(part for part in (*(path for path, _ in self._book.places.stack[-1:]), op_name(op)) if part)
        self._book.notes.append(
            f"{where}: its dropout (p={bound[name]}) is drawn inside one op where it cannot be held fixed; it is off here."
        )
        return (), {**bound, name: 0.0}
