"""Capture by `torch.export`: loss(model, batch) as a functional graph of whole unit formulas."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx._lazy_graph_module import _use_lazy_graph_module

from chainrule.capture.batches import tensors_of, with_tensors
from chainrule.capture.decompose import decomposed
from chainrule.capture.draws import Drawing
from chainrule.capture.no_grad import Detaching
from chainrule.capture.nodes import LOSS_PATH, ROOTS, Converted, convert
from chainrule.capture.passes import count_draws, draws_of, prepare
from chainrule.capture.provenance import GradMode, user_frames
from chainrule.capture.running import ancestors, resolve
from chainrule.errors import CaptureError, SetupError
from chainrule.graph import Graph, Leaf, Ref

Loss = Callable[[Any, Any], Tensor]


class LossModule(nn.Module):
    """loss(model, batch) as a module of the batch's tensors, which is the form that `torch.export` takes."""

    def __init__(self, model: nn.Module, loss: Loss, batch: Any) -> None:
        super().__init__()
        self.model, self.loss, self.batch = model, loss, batch

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss, its shape made ()."""
        supply = iter(tensors)
        return scalar(self.loss(self.model, with_tensors(self.batch, lambda _: next(supply))))


def scalar(value: Any) -> Tensor:
    """The loss with shape (); raises SetupError if it is no tensor, no single number, or not floating."""
    if not isinstance(value, Tensor):
        keep = "; return its .loss" if isinstance(getattr(value, "loss", None), Tensor) else ""
        raise SetupError(f"loss(model, batch) returned a {type(value).__name__}, expected a scalar tensor{keep}")
    if value.numel() != 1:
        raise SetupError(
            f"loss(model, batch) has shape {tuple(value.shape)}, expected a scalar: reduce it with .mean() or .sum()"
        )
    if not value.is_floating_point():
        raise SetupError(f"loss(model, batch) is {value.dtype}, expected a floating tensor: it has no derivative")
    return value if value.dim() == 0 else value.reshape(())


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported loss(model, batch), and what had to be left out, in sentences."""

    wrapper: LossModule
    program: ExportedProgram
    graph: fx.Graph
    notes: tuple[str, ...]


def export(model: nn.Module, loss: Loss, batch: Any) -> Exported:
    """The functional program of loss(model, batch): in-place operations gone, unit formulas whole.

    Runs the user's code on fake tensors. Raises whatever that or torch.export raises.
    """
    wrapper = LossModule(model, loss, batch)
    # Lazy graph modules write no Python until they are called, and those in between never are: a tenth of the time.
    with _quiet(), torch.enable_grad(), _use_lazy_graph_module(True), user_frames(grad_mode := GradMode()):
        with grad_mode, torch.compiler.set_stance("force_eager"):
            program = torch.export.export(wrapper, tuple(tensors_of(batch).values()), strict=False)
        notes = prepare(program.graph_module)
        drawn = count_draws(program.graph_module)
        program, graph = decomposed(program)
    if draws_of(graph) != drawn:
        raise CaptureError(
            f"{type(model).__name__}\n  cannot be exported: it draws random numbers and does not use them"
        )
    return Exported(wrapper, program, graph, (*_unregistered(program), *notes))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, prints and torch's log: they would speak of fake tensors and of export's own insides."""
    torch_logs = [log for name, log in logging.root.manager.loggerDict.items() if name.startswith("torch")]
    enabled = [log for log in torch_logs if isinstance(log, logging.Logger) and not log.disabled]
    for log in enabled:
        log.disabled = True
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in enabled:
            log.disabled = False


def graph_of(exported: Exported) -> Graph:
    """The program as our graph; draws its randomness from the global generators, in order."""
    leaves, places = _leaves(exported.wrapper, exported.program)
    converted = convert(exported.graph, places, roots=ROOTS)
    outputs = _outputs(exported.program, converted)
    detaching = Detaching(converted.no_grad, leaves)
    detaching.add(converted.nodes)
    outputs[""] = detaching.outside(outputs[""])
    layouts = {name: resolve(ref, converted.layouts) for name, ref in detaching.added.items()}
    drawing = Drawing(dict(leaves), {**converted.layouts, **layouts})
    drawing.draw(detaching.nodes)
    outputs = {name: drawing.moved(ref) for name, ref in outputs.items()}
    nodes = ancestors(drawing.nodes, outputs.values())
    used = {ref.name for node in nodes for ref in node.refs()} | {ref.name for ref in outputs.values()}
    used |= {ref.name for name in used for ref in drawing.drawn_from(name)}
    return Graph(
        leaves={name: leaf for name, leaf in drawing.leaves.items() if name in leaves or name in used},
        nodes=nodes,
        output=outputs.pop(""),
        notes=(*exported.notes, *detaching.notes, *drawing.notes),
        mutated=outputs,
    )


def _outputs(program: ExportedProgram, converted: Converted) -> dict[str, Ref]:
    """The loss under "", and each mutated buffer's new value under its path."""
    outputs: dict[str, Ref] = {}
    for spec, output in zip(program.graph_signature.output_specs, converted.outputs, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            outputs[""] = output
        elif spec.kind is OutputKind.BUFFER_MUTATION:
            outputs[str(spec.target).removeprefix("model.")] = output
    return outputs


def _leaves(wrapper: LossModule, program: ExportedProgram) -> tuple[dict[str, Leaf], dict[str, Ref]]:
    """The leaves by name, and the leaf that each placeholder of the program stands for."""
    state = dict(wrapper.named_parameters(remove_duplicate=False)) | dict(wrapper.named_buffers(remove_duplicate=False))
    paths = _paths(state)
    batch = iter(tensors_of(wrapper.batch).items())
    nodes = {node.name for node in program.graph.nodes}
    tied: dict[int, Leaf] = {}  # a tensor of the model under several paths is one leaf
    leaves: dict[str, Leaf] = {}
    places: dict[str, Ref] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            value = state[str(spec.target)]
            leaf = tied.get(id(value)) or _state_leaf(value, paths[id(value)], nodes | leaves.keys())
            tied[id(value)] = leaf
        elif spec.kind is InputKind.USER_INPUT:
            place, value = next(batch)
            leaf = Leaf(_free(f"batch_{place}", nodes | leaves.keys()), "batch", _snapshot(value), (place,))
        else:
            name = _free("constant", nodes | leaves.keys())
            leaf = Leaf(name, "constant", _snapshot(program.constants[str(spec.target)]), (name,))
        leaves[leaf.name] = leaf
        places[spec.arg.name] = Ref(leaf.name)
    return leaves, places


def _state_leaf(value: Tensor, paths: tuple[str, ...], taken: Container[str]) -> Leaf:
    if isinstance(value, nn.Parameter):  # large, and so not copied: as in torch.export
        return Leaf(_free(f"p_{paths[0]}", taken), "parameter", value.detach(), paths, value.requires_grad)
    return Leaf(_free(f"b_{paths[0]}", taken), "buffer", _snapshot(value), paths)


def _unregistered(program: ExportedProgram) -> Iterator[str]:
    """A sentence for each tensor that requires grad and is no parameter: training would never update it."""
    for constant in program.constants.values():
        if isinstance(constant, Tensor) and constant.requires_grad:
            yield (
                f"The loss uses a tensor of shape {tuple(constant.shape)} that requires grad and is no parameter "
                "of the model; it is held constant here. Make it an nn.Parameter."
            )


def _paths(state: Mapping[str, Tensor]) -> dict[int, tuple[str, ...]]:
    """All paths of each parameter and buffer, by its identity."""
    paths: dict[int, tuple[str, ...]] = {}
    for path, value in state.items():
        owner, _, rest = path.partition(".")
        paths[id(value)] = (*paths.get(id(value), ()), rest if owner == "model" else f"{LOSS_PATH}.{rest}")
    return paths


def _free(text: str, taken: Container[str]) -> str:
    """An identifier made of the text that is not taken yet."""
    name = re.sub(r"[\W_]+", "_", text).strip("_")
    return next(name for name in chain([name], (f"{name}_{n}" for n in count(1))) if name not in taken)


def _snapshot(value: Tensor) -> Tensor:
    """A copy: what the user's next step does to the tensor does not reach the graph."""
    return value.detach().clone()
