"""From a functional fx graph to our frozen nodes: arguments by schema name, no getitem, module path and source line."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from chainrule.errors import CaptureError
from chainrule.graph import Argument, Node, Ref, Source, Spec, bind_arguments, refs_in

aten = torch.ops.aten
FUNCTION_FRAME = "<autograd.Function>"  # file name of the pseudo frame that names the custom Function around a node
_FRAME = re.compile(r'File "(?P<file>[^\n]*)", line (?P<line>\d+), in (?P<name>[^\n]*)(?:\n    (?P<code>[^\n]*))?')
# Ops that compute nothing: they only watch. A promoted graph would trip over the dtype in the first.
_ASSERTIONS = frozenset(
    {
        aten._assert_tensor_metadata.default,
        aten._assert_async.msg,
        aten._assert_async.default,
        aten._assert_scalar.default,
        aten._functional_assert_async.msg,
        aten._functional_assert_scalar.default,
        aten.sym_constrain_range.default,
        aten.sym_constrain_range_for_size.default,
    }
)


@dataclass(frozen=True, slots=True)
class Converted:
    """The nodes of an fx graph in order, and what its output returns (Refs, or constants)."""

    nodes: tuple[Node, ...]
    outputs: tuple[Argument, ...]


def convert(
    graph: fx.Graph,
    places: Mapping[str, Argument],
    *,
    rename: Callable[[str], str] = str,
    root: str | None = None,
) -> Converted:
    """Our nodes of a functional fx graph.

    places  what each placeholder stands for, by its fx name: a `Ref`, or a constant
    rename  a node's name from its fx name, to keep names unique where several graphs are joined
    root    path, in the graph's module stack, of the module that is to be the root ""; None keeps paths as they are
    """
    values: dict[fx.Node, Argument] = {}
    nodes: list[Node] = []
    outputs: tuple[Argument, ...] = ()
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = places[node.name]
        elif node.op == "output":
            outputs = tuple(fx.node.map_arg(node.args[0], values.__getitem__))
        elif node.target is operator.getitem:
            values[node] = Ref(values[node.args[0]].name, node.args[1])
        elif node.target in _ASSERTIONS:
            values[node] = None
        else:
            nodes.append(_converted(node, values, rename(node.name), root))
            values[node] = Ref(nodes[-1].name)
    return Converted(tuple(nodes), outputs)


def reachable(nodes: tuple[Node, ...], outputs: tuple[Argument, ...]) -> tuple[Node, ...]:
    """Those nodes on which an output depends, in order."""
    wanted = {ref.name for ref in refs_in(outputs)}
    kept = []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= {ref.name for ref in node.refs()}
            kept.append(node)
    return tuple(reversed(kept))


def spec_of(value: Any) -> Spec | tuple[Spec | None, ...]:
    """Shape and dtype of an op's output; a tuple of them for an op with several outputs."""
    if isinstance(value, Tensor):
        return Spec(tuple(value.shape), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(Spec(tuple(item.shape), item.dtype) if isinstance(item, Tensor) else None for item in value)
    return ()


def stack_of(stack: Mapping[str, tuple[str, Any]], root: str | None = None) -> tuple[tuple[str, str], ...]:
    """(path, class name) of the enclosing modules, outermost first, from fx's `nn_module_stack`."""
    modules = []
    for path, kind in stack.values():
        name = kind if isinstance(kind, str) else kind.__qualname__
        modules.append((re.sub(r"@\d+", "", path), name.rpartition(".")[2]))
    if root is None:
        return tuple(modules)
    inside = [(path, name) for path, name in modules if path == root or path.startswith(f"{root}.")]
    return tuple((path[len(root) + 1 :], name) for path, name in inside)


def source_of(stack_trace: str | None) -> tuple[Source | None, str]:
    """The innermost frame of a formatted stack trace, and the name of the custom Function around it or ""."""
    source, function = None, ""
    for frame in _FRAME.finditer(stack_trace or ""):
        if frame["file"] == FUNCTION_FRAME:
            function = frame["name"]
        else:
            source = Source(frame["file"], int(frame["line"]), (frame["code"] or "").strip())
    return source, function


def _converted(node: fx.Node, values: Mapping[fx.Node, Argument], name: str, root: str | None) -> Node:
    source, function = source_of(node.stack_trace)
    op = node.target
    if not isinstance(op, OpOverload):
        raise CaptureError(f"{source or name}: {op} is no tensor operation; write the loss with torch functions alone")
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    return Node(
        name=name,
        op=op,
        arguments=bind_arguments(op, tuple(args), kwargs),
        spec=spec_of(node.meta.get("val")),
        stack=stack_of(node.meta.get("nn_module_stack", {}), root),
        source=source,
        function=function,
    )
