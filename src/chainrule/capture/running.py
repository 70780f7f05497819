"""Single nodes: run, renamed, sorted out, as capture needs it; whole graphs are run by `autodiff.evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from chainrule.graph import Argument, Node, Ref, Spec, Value


def resolve(argument: Argument, values: Mapping[str, Value]) -> Value:
    """The argument with each `Ref` replaced by its value."""
    if isinstance(argument, Ref):
        value = values[argument.name]
        return value if argument.index is None else value[argument.index]
    if isinstance(argument, tuple):
        return tuple(resolve(item, values) for item in argument)
    return argument


def run(node: Node, values: Mapping[str, Value]) -> Value:
    """The node's output, given what it refers to; an op that returns a list returns a tuple."""
    value = node.op(**{name: resolve(argument, values) for name, argument in node.arguments.items()})
    return tuple(value) if isinstance(value, list) else value


def renamed(node: Node, refs: Mapping[Ref, Ref]) -> Node:
    """The node with each `Ref` of its arguments that `refs` names replaced."""
    return replace(node, arguments={name: _renamed(value, refs) for name, value in node.arguments.items()})


def _renamed(argument: Argument, refs: Mapping[Ref, Ref]) -> Argument:
    if isinstance(argument, Ref):
        return refs.get(argument, argument)
    return tuple(_renamed(item, refs) for item in argument) if isinstance(argument, tuple) else argument


def is_floating(spec: Spec) -> bool:
    """True for real and complex floating dtypes."""
    return spec.dtype.is_floating_point or spec.dtype.is_complex


def ancestors(nodes: Iterable[Node], wanted: Iterable[Ref]) -> tuple[Node, ...]:
    """Those of the nodes on which a wanted value depends, in order."""
    names = {ref.name for ref in wanted}
    kept = []
    for node in reversed(tuple(nodes)):
        if node.name in names:
            names |= {ref.name for ref in node.refs()}
            kept.append(node)
    return tuple(reversed(kept))
