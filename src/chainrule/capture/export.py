"""Capture by `torch.export`: loss(model, batch) as a functional graph of whole unit formulas."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.capture.batches import tensors_of, with_tensors
from chainrule.capture.nodes import convert, reachable
from chainrule.capture.provenance import user_frames
from chainrule.graph import Graph, Leaf, Ref

Loss = Callable[[Any, Any], Tensor]


class LossModule(nn.Module):
    """loss(model, batch) as a module of the batch's tensors, which is what `torch.export` takes."""

    def __init__(self, model: nn.Module, loss: Loss, batch: Any) -> None:
        super().__init__()
        self.model, self.loss, self.batch = model, loss, batch

    def forward(self, *tensors: Tensor) -> Tensor:
        supply = iter(tensors)
        return self.loss(self.model, with_tensors(self.batch, lambda _: next(supply)))


def capture(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph of loss(model, batch)."""
    return capture_by_export(model, loss, batch)


def capture_by_export(model: nn.Module, loss: Loss, batch: Any) -> Graph:
    """The graph of loss(model, batch) by `torch.export`."""
    tensors = tensors_of(batch)
    wrapper = LossModule(model, loss, batch)
    with warnings.catch_warnings(), torch.enable_grad(), user_frames():
        warnings.simplefilter("ignore")  # of export's own insides
        program = torch.export.export(wrapper, tuple(tensors.values()), strict=False)
        program = program.run_decompositions({})
    places, leaves = _leaves(program, wrapper, tensors)
    converted = convert(program.graph, places, root="model")
    signature = program.graph_signature
    mutated = {
        signature.buffers_to_mutate[spec.arg.name].removeprefix("model."): output
        for spec, output in zip(signature.output_specs, converted.outputs, strict=True)
        if spec.arg.name in signature.buffers_to_mutate
    }
    (output,) = (
        output
        for spec, output in zip(signature.output_specs, converted.outputs, strict=True)
        if spec.kind.name == "USER_OUTPUT"
    )
    return Graph(
        leaves=leaves,
        nodes=reachable(converted.nodes, (output, *mutated.values())),
        output=output,
        mutated=mutated,
    )


def _leaves(
    program: torch.export.ExportedProgram, wrapper: LossModule, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Ref], dict[str, Leaf]]:
    signature = program.graph_signature
    places: dict[str, Ref] = {}
    leaves: dict[str, Leaf] = {}
    batch = iter(tensors.items())
    state = dict(wrapper.named_parameters(remove_duplicate=False)) | dict(wrapper.named_buffers(remove_duplicate=False))
    paths = _paths(state.items())
    by_identity: dict[int, str] = {}
    for spec in signature.input_specs:
        kind = spec.kind.name
        if kind in ("PARAMETER", "BUFFER"):
            value = state[spec.target]
            name = by_identity.get(id(value))
            if name is None:
                name = by_identity[id(value)] = spec.arg.name.replace("_model_", "_", 1)
                leaves[name] = Leaf(
                    name,
                    "parameter" if kind == "PARAMETER" else "buffer",
                    value.detach().clone(),
                    tuple(paths[id(value)]),
                    value.requires_grad,
                )
        elif kind == "USER_INPUT":
            path, value = next(batch)
            name = f"batch_{len(leaves)}"
            leaves[name] = Leaf(name, "batch", value.detach().clone(), (path,))
        else:
            name = spec.arg.name
            leaves[name] = Leaf(name, "constant", program.constants[spec.target].detach().clone(), (spec.target,))
        places[spec.arg.name] = Ref(name)
    return places, leaves


def _paths(named: Iterable[tuple[str, Tensor]]) -> dict[int, list[str]]:
    paths: dict[int, list[str]] = {}
    for path, value in named:
        paths.setdefault(id(value), []).append(path.removeprefix("model."))
    return paths
