"""The graph of unit formulas of `loss(model, batch)`: plain frozen data, on which every engine works.

A graph is a list of nodes in the order in which forward runs them. A node is one unit formula, `output = op(arguments)`,
with the module and the source line that it comes from. An argument that is a value of the graph is a `Ref`; every tensor
that no node computes (a parameter, a buffer, the batch, a constant, a recorded random draw) is a `Leaf`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

# None, bool, int, float, str, torch.dtype, torch.device, Ref, or a tuple of these.
Argument: TypeAlias = Any
# What a leaf or node holds when the graph is evaluated: a tensor, or a tuple of them for an op with several outputs.
Value: TypeAlias = Any
LeafKind = Literal["parameter", "buffer", "batch", "constant", "random"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of the graph: the output of the leaf or node `name`, or its output number `index` if it has several."""

    name: str
    index: int | None = None

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Source:
    """The user's line that a node comes from: the innermost frame outside torch and chainrule."""

    file: str
    line: int
    code: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype of one output."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.shape} {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One unit formula: `output = op(**arguments)`.

    arguments  by the names of the op's schema, in its order, defaults filled in (see `bind_arguments`)
    spec       of the output, or a tuple of them for an op with several outputs (None for an output that is no tensor)
    stack      enclosing modules, outermost first, as (path, class name); the root is ("", "GPT")
    function   name of the custom `autograd.Function` whose forward this node belongs to, or ""
    """

    name: str
    op: OpOverload
    arguments: Mapping[str, Argument]
    spec: Spec | tuple[Spec | None, ...]
    stack: tuple[tuple[str, str], ...] = ()
    source: Source | None = None
    function: str = ""

    @property
    def module(self) -> str:
        """Path of the innermost enclosing module, as in `named_modules()`; "" is the root."""
        return self.stack[-1][0] if self.stack else ""

    @property
    def where(self) -> str:
        """Module path and unit formula, e.g. "blocks.3.attention.softmax"."""
        return f"{self.module}.{op_name(self.op)}".removeprefix(".")

    def refs(self) -> Iterator[Ref]:
        """Every graph value among the arguments, in schema order, lists included."""
        for argument in self.arguments.values():
            yield from refs_in(argument)


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A tensor that no node computes.

    paths   a parameter's or buffer's names in the model, all of them if it is tied; a batch tensor's place, e.g. "[0]";
            a constant's name. The first is the name under which results are reported.
    recipe  of a "random" leaf: the node whose output `value` is, such as a dropout mask already divided by 1 - p. Its
            arguments hold no Ref, or Refs to constant leaves, so that it can be drawn again.
    """

    name: str
    kind: LeafKind
    value: Tensor
    paths: tuple[str, ...] = ()
    trainable: bool = False
    recipe: Node | None = None

    @property
    def path(self) -> str:
        """The name under which results about this leaf are reported."""
        return self.paths[0] if self.paths else self.name


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """`loss(model, batch)` as unit formulas. `leaves` and `nodes` share one space of names.

    origin  which capture made it: "export" or "tape"
    notes   what capture had to change or leave out, in sentences for the report
    """

    leaves: Mapping[str, Leaf]
    nodes: tuple[Node, ...]
    output: Ref
    origin: Literal["export", "tape"] = "export"
    notes: tuple[str, ...] = ()
    mutated: Mapping[str, Ref] = field(
        default_factory=dict
    )  # buffer path -> its new value, e.g. batch norm's running mean

    @property
    def parameters(self) -> dict[str, Leaf]:
        """Trainable leaves by the name under which gradients are reported."""
        return {leaf.path: leaf for leaf in self.leaves.values() if leaf.trainable}

    def node(self, name: str) -> Node:
        """The node called `name`."""
        return next(node for node in self.nodes if node.name == name)


def refs_in(argument: Argument) -> Iterator[Ref]:
    """The `Ref`s inside one argument, lists included."""
    if isinstance(argument, Ref):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from refs_in(item)


def op_name(op: OpOverload) -> str:
    """The unit formula's name without namespace and overload: aten._softmax.default -> "softmax"."""
    return str(op).split(".")[1].lstrip("_")


@cache
def schema_defaults(op: OpOverload) -> tuple[tuple[str, Any], ...]:
    """(name, default) of each argument of the op, in schema order; `...` (Ellipsis) where there is no default."""
    return tuple((a.name, a.default_value if a.has_default_value() else ...) for a in op._schema.arguments)


def bind_arguments(op: OpOverload, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> dict[str, Argument]:
    """Arguments by schema name, in schema order, with defaults; lists become tuples.

    Raises TypeError if an argument without default is missing.
    """
    bound: dict[str, Argument] = {}
    for position, (name, default) in enumerate(schema_defaults(op)):
        value = args[position] if position < len(args) else kwargs.get(name, default)
        if value is ...:
            raise TypeError(f"{op}: argument {name!r} is missing")
        bound[name] = _as_tuple(value)
    return bound


def _as_tuple(value: Argument) -> Argument:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, (list, tuple)) else value
