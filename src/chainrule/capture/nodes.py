"""From a functional fx graph to our frozen nodes: arguments by schema name, no getitem, module path and source line."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload

from chainrule.errors import CaptureError
from chainrule.graph import Argument, Node, Ref, Source, Spec, Value, bind_arguments

aten = torch.ops.aten
FUNCTION_FRAME = "<autograd.Function>"  # file name of the pseudo frame that names the custom Function around a node
NO_GRAD_FRAME = "<no_grad>"  # the same for a no_grad block, with one of these for its name:
NO_GRAD_BLOCK, IN_PLACE = "block", "in-place change"
LOSS_PATH = "(loss)"  # path of the loss where it is a module of its own; no path inside the model looks like it
ROOTS = {"model": "", "loss": LOSS_PATH}  # the modules of an exported program, and their paths in the graph
RECURRENT = frozenset(
    overload for op in (aten.lstm, aten.gru, aten.rnn_tanh, aten.rnn_relu) for overload in (op.input, op.data)
)
DRAW_INSIDE = RECURRENT | {aten.scaled_dot_product_attention.default}  # random by a dropout inside alone
_FRAME = re.compile(r'File "(?P<file>[^\n]*)", line (?P<line>\d+), in (?P<name>[^\n]*)(?:\n    (?P<code>[^\n]*))?')


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a node comes from.

    source    the user's innermost frame
    function  name of the custom `autograd.Function` around it, or ""
    no_grad   NO_GRAD_BLOCK if it was computed in one, IN_PLACE if it changed a tensor there, else ""
    """

    source: Source | None
    function: str
    no_grad: str


@dataclass(frozen=True, slots=True)
class Converted:
    """An fx graph as nodes.

    nodes    in order
    outputs  what the graph returns: Refs, or constants
    layouts  fx's fake tensor of each node's output, by the node's name: shape, dtype and memory layout
    no_grad  nodes of no_grad blocks, by name: see `Trace`
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Argument, ...]
    layouts: Mapping[str, Value]
    no_grad: Mapping[str, str]


def convert(
    graph: fx.Graph,
    places: Mapping[str, Argument],
    *,
    rename: Callable[[str], str] = str,
    roots: Mapping[str, str] | None = None,
) -> Converted:
    """Our nodes of a functional fx graph.

    places  what each placeholder stands for, by its fx name: a `Ref`, or a constant
    rename  a node's name from its fx name, to keep names unique where several graphs are joined
    roots   new path of each top module of the graph's module stack; other modules are left out. None keeps all as is
    """
    live = _live(graph)
    values: dict[fx.Node, Argument] = {}
    nodes: list[Node] = []
    layouts: dict[str, Value] = {}
    no_grad: dict[str, str] = {}
    outputs: tuple[Argument, ...] = ()
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = places[node.name]
        elif node.op == "output":
            outputs = tuple(fx.node.map_arg(node.args[0], values.__getitem__))
        elif node.target is operator.getitem and node in live:
            values[node] = Ref(values[node.args[0]].name, node.args[1])
        elif node in live:
            nodes.append(_converted(node, values, rename(node.name), roots))
            values[node] = Ref(nodes[-1].name)
            layouts[nodes[-1].name] = node.meta.get("val")
            if mode := trace_of(node.stack_trace).no_grad:
                no_grad[nodes[-1].name] = mode
    return Converted(tuple(nodes), outputs, layouts, no_grad)


def spec_of(value: Any) -> Spec | tuple[Spec | None, ...]:
    """Shape and dtype of an op's output; a tuple of them for an op with several outputs."""
    if isinstance(value, Tensor):
        return Spec(tuple(value.shape), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(Spec(tuple(item.shape), item.dtype) if isinstance(item, Tensor) else None for item in value)
    return ()


def stack_of(
    stack: Mapping[str, tuple[str, Any]], roots: Mapping[str, str] | None = None
) -> tuple[tuple[str, str], ...]:
    """(path, class name) of the enclosing modules, outermost first, from fx's `nn_module_stack`."""
    modules = []
    for path, kind in stack.values():
        top, _, rest = re.sub(r"@\d+", "", path).partition(".")
        name = (kind if isinstance(kind, str) else kind.__qualname__).rpartition(".")[2]
        if roots is None:
            modules.append((path, name))
        elif top in roots:
            modules.append((".".join(part for part in (roots[top], rest) if part), name))
    return tuple(modules)


def trace_of(stack_trace: str | None) -> Trace:
    """What the frames of a formatted stack trace say."""
    source, function, mode = None, "", ""
    for frame in _FRAME.finditer(stack_trace or ""):
        if frame["file"] == FUNCTION_FRAME:
            function = frame["name"]
        elif frame["file"] == NO_GRAD_FRAME:
            mode = frame["name"]
        else:
            source = Source(frame["file"], int(frame["line"]), (frame["code"] or "").strip())
    return Trace(source, function, mode)


def is_random(op: OpOverload) -> bool:
    """True for an op whose output is drawn from a generator; not for one that is random only by a dropout inside."""
    return torch.Tag.nondeterministic_seeded in op.tags and op not in DRAW_INSIDE


def _is_symbolic(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_is_symbolic(item) for item in value)
    if isinstance(value, Tensor):
        return any(isinstance(size, torch.SymInt) for size in value.shape)
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def _live(graph: fx.Graph) -> set[fx.Node]:
    """What reaches the output, and every random draw: one that is not used still moves the generator."""
    live: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in live or (isinstance(node.target, OpOverload) and is_random(node.target)):
            live |= {node, *node.all_input_nodes}
    return live


def _converted(node: fx.Node, values: Mapping[fx.Node, Argument], name: str, roots: Mapping[str, str] | None) -> Node:
    trace = trace_of(node.stack_trace)
    op = node.target
    where = f"{trace.source}: {trace.source.code}" if trace.source else name
    if isinstance(op, HigherOrderOperator):
        raise CaptureError(f"{where}\n  cannot be captured: {op} runs code of its own and is no unit formula")
    if not isinstance(op, OpOverload) or _is_symbolic(node.meta.get("val")):
        raise CaptureError(f"{where}\n  cannot be captured: a shape depends on a tensor's values")
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    return Node(
        name=name,
        op=op,
        arguments=bind_arguments(op, tuple(args), kwargs),
        spec=spec_of(node.meta.get("val")),
        stack=stack_of(node.meta.get("nn_module_stack", {}), roots),
        source=trace.source,
        function=trace.function,
    )
