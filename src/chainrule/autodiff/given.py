"""The first evaluation of a graph: an op that refuses the numbers it is given is named, with its line and what it expects.

Export runs the user's code on tensors without numbers, so that an index out of range or a target that is no probability comes
to light only here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.autodiff.evaluate import resolve, run_node
from chainrule.errors import SetupError
from chainrule.graph import Argument, Graph, Node, Value, op_name

aten = torch.ops.aten


def evaluate_given(graph: Graph) -> dict[str, Value]:
    """Values of all leaves and nodes by name, at what the graph was recorded with. Raises SetupError if an op refuses them."""
    values: dict[str, Value] = {name: leaf.value for name, leaf in graph.leaves.items()}
    with torch.no_grad():
        for node in graph.nodes:
            try:
                values[node.name] = run_node(node, values)
            except torch.OutOfMemoryError:
                raise
            except (IndexError, RuntimeError, ValueError) as error:
                raise SetupError(refused(node, resolve(node, values), error)) from error
    return values


def refused(node: Node, arguments: Mapping[str, Argument], error: Exception) -> str:
    """What was refused, where, what it held, and what the op expects as far as that is known."""
    at = f" at {node.source}: {node.source.code}" if node.source else ""
    held = [f"  {name} {_held(value)}" for name, value in arguments.items() if isinstance(value, Tensor)]
    expects = EXPECTS.get(node.op)
    advice = expects(arguments) if expects else ""
    said = [f"  {type(error).__name__}: {error}", *held, *([f"  {advice}"] if advice else [])]
    return "\n".join([f"loss(model, batch) cannot be computed: {op_name(node.op)} refuses its input{at}", *said])


def _held(tensor: Tensor) -> str:
    about = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    if not tensor.numel() or tensor.is_complex():
        return about
    if tensor.is_floating_point() and (strange := int((~torch.isfinite(tensor)).sum())):
        return f"{about} holds {strange:,} inf or nan"
    return f"{about} holds {tensor.min().item():.4g} .. {tensor.max().item():.4g}"


def _rows(arguments: Mapping[str, Argument]) -> str:
    rows = int(arguments["weight"].shape[0])
    return f"an embedding of {rows:,} rows takes indices from 0 to {rows - 1:,}: give it a row for every token, or mend the ids"


def _classes(arguments: Mapping[str, Argument]) -> str:
    scores = arguments["self"]
    count, ignored = int(scores.shape[1 if scores.dim() > 1 else 0]), arguments.get("ignore_index", -100)
    return (
        f"scores of {count:,} classes take labels from 0 to {count - 1:,}, and {ignored}, which is left out: "
        "give the model an output for every class, or mend the labels"
    )


def _probabilities(arguments: Mapping[str, Argument]) -> str:
    target = arguments["target"]
    if bool(((target < 0) | (target > 1)).any()):
        return (
            "a binary cross entropy takes targets from 0 to 1: for more than two classes use one output per class and "
            "cross_entropy"
        )
    return "a binary cross entropy takes probabilities: give it a sigmoid's output, or use binary_cross_entropy_with_logits"


# op -> what it expects of its arguments, and what to do
EXPECTS: Mapping[OpOverload, Callable[[Mapping[str, Argument]], str]] = MappingProxyType(
    {
        aten.embedding.default: _rows,
        aten.cross_entropy_loss.default: _classes,
        aten.nll_loss_nd.default: _classes,
        aten.binary_cross_entropy.default: _probabilities,
    }
)
