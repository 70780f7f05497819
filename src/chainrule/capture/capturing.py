"""`capture`: the graph of loss(model, batch), by export, or by the tape where export cannot follow the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.parameter import is_lazy

from chainrule.capture.allocator import keep_freed_memory
from chainrule.capture.eager import user_loss
from chainrule.capture.export import Loss, export, graph_of
from chainrule.capture.preserve import global_generators, preserved
from chainrule.capture.provenance import line_of
from chainrule.capture.running import ancestors, is_floating
from chainrule.capture.tape import capture_by_tape
from chainrule.errors import CaptureError, ChainruleError, SetupError
from chainrule.graph import Graph, Node, Spec
from chainrule.setups import uncompiled

aten = torch.ops.aten


def capture(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph of loss(model, batch): unit formulas with their values, modules and source lines.

    The batch may be of any type. Its values and those of the buffers are copied; parameters share the model's memory,
    as in torch.export, so never write into a leaf. `bind` gives the current values of all. Model, loss, batch and all
    generators are afterwards as they were.

    Raises SetupError where model, loss or batch cannot be used (no module, no scalar loss, no trainable parameter
    behind it), and CaptureError, with the user's line, where no graph can be made of the code.
    """
    model = check_model(model, loss)
    keep_freed_memory()  # whatever is done with the graph makes many tensors
    try:
        with preserved(model, loss, batch):
            graph = capture_by_export(model, loss, batch)
    except CaptureError as refused:
        graph = _by_tape(model, loss, batch, refused)
    check_depends(graph)
    return graph


def _by_tape(model: nn.Module, loss: Loss, batch: Any, refused: CaptureError) -> Graph:
    """What export refused, recorded from an eager run; errors of the user's own code come to light here."""
    try:
        graph = capture_by_tape(model, loss, batch)
    except SetupError:
        raise
    except Exception as error:
        _raise_the_users_own(model, loss, batch)
        said = error if isinstance(error, ChainruleError) else f"{type(error).__name__}: {error}"
        raise CaptureError(f"{refused}\nnor recorded from an eager run: {said}") from error
    reason = " ".join(str(refused).split())
    return replace(graph, notes=(*graph.notes, f"Recorded from an eager run, not exported: {reason}."))


def _raise_the_users_own(model: nn.Module, loss: Loss, batch: Any) -> None:
    """Raise SetupError if loss(model, batch) fails without us too."""
    try:
        user_loss(model, loss, batch)
    except Exception as error:
        line = line_of(error)
        raise SetupError(
            f"loss(model, batch) fails by itself{f' at {line}: {line.code}' if line else ''}\n"
            f"  {type(error).__name__}: {error}"
        ) from error


def capture_by_export(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph by `torch.export` alone. Call it inside `preserved`."""
    rewind = global_generators()
    try:
        exported = export(model, loss, batch)
        rewind()
        return graph_of(exported)
    except ChainruleError:
        raise
    except Exception as error:
        raise _explained(error) from error


def check_model(model: Any, loss: Any) -> nn.Module:
    """The model, out of the wrapper that torch.compile puts around it; SetupError if model or loss are none."""
    if not isinstance(model, nn.Module):
        raise SetupError(f"the model is a {type(model).__name__}, expected a torch.nn.Module")
    if not callable(loss):
        raise SetupError(
            f"the loss is a {type(loss).__name__}, expected a function loss(model, batch) -> scalar tensor"
        )
    model = uncompiled(model)
    assert isinstance(model, nn.Module)
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise SetupError(f"{lazy[0]} has no shape yet (a lazy module): run the model once on a batch first")
    if not any(parameter.requires_grad for parameter in [*model.parameters(), *_own_parameters(loss)]):
        raise SetupError("no parameter of the model requires grad: there is nothing to differentiate")
    return model


def check_depends(graph: Graph) -> None:
    """Raise SetupError if no trainable parameter reaches the loss."""
    through = [node for node in graph.nodes if node.op is not aten.detach.default and _has_derivative(node)]
    reached = {ref.name for node in ancestors(through, [graph.output]) for ref in node.refs()} | {graph.output.name}
    if not any(leaf.trainable for name, leaf in graph.leaves.items() if name in reached):
        last = graph.nodes[-1].source if graph.nodes else None
        raise SetupError(
            f"the loss{f' ({last}: {last.code})' if last else ''} depends on no trainable parameter: "
            "look for a detach, a no_grad block, or a loss that does not use the model's output"
        )


def _explained(error: Exception) -> CaptureError:
    """What export could not follow, at the user's line."""
    source = line_of(error)
    where = f"{source}: {source.code}" if source else "loss(model, batch)"
    if isinstance(error, (GuardOnDataDependentSymNode, DataDependentOutputException)) or "data-dependent" in str(error):
        reason = "what runs next, or a shape, depends on a tensor's value, which a graph cannot hold"
    elif "fake tensor in the exported program" in str(error):
        reason = "it computes with tensors where export does not see it (autograd.grad, .data, a kept tensor)"
    else:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return CaptureError(f"{where}\n  cannot be captured: {reason}")


def _own_parameters(loss: Any) -> Iterator[nn.Parameter]:
    if isinstance(loss, nn.Module):
        yield from loss.parameters()


def _has_derivative(node: Node) -> bool:
    specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
    return any(spec is not None and is_floating(spec) for spec in specs)
