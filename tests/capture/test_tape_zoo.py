"""The tape on the whole zoo: aligned with export, and faithful to the user's run."""

from collections import Counter
from typing import Any

import pytest
import torch

from capture.tape_checks import disagreements, residuals, wrong_gradients
from chainrule.capture.capturing import capture
from chainrule.capture.tape import capture_by_tape, record
from chainrule.derivatives import FLAT
from chainrule.errors import CaptureError
from chainrule.graph import Graph, Node
from zoo.case import ZooModel
from zoo.hf import HF
from zoo.models import OWN

aten = torch.ops.aten
ZOO = (*OWN, *(pytest.param(model, marks=pytest.mark.hf) for model in HF))
every_model = pytest.mark.parametrize("model", ZOO, ids=str)
both_captures = pytest.mark.parametrize(
    "model", [m for m in ZOO if getattr(m, "values", (m,))[0].origin == "export"], ids=str
)

# Formulas that change no number; whether they are called depends on the kernel (a copy into another memory layout) or
# on whether shapes are known (export broadcasts what eager sees is equal).
IDENTITIES = frozenset(
    {aten.clone.default, aten.alias.default, aten.detach.default, aten.broadcast_tensors.default, aten.type_as.default}
)
# Attention with dropout, of which our capture by export writes the textbook's steps and PyTorch runs its own: softmax
# that minds empty rows, a causal mask that is added where ours is filled in; and a kernel chosen by whether export traces.
SAME = {"_safe_softmax": "softmax", "masked_fill": "add", "_grouped_mm": "grouped_mm_fallback"}
UNORDERED = {"transpose"}  # the same: PyTorch scales the keys after it transposes them, our capture before
OTHER_BRANCH = {"hf_mixtral", "hf_t5"}  # their own code asks whether it is being exported, and runs other lines


def gradient_path(graph: Graph) -> list[Node]:
    """The nodes through which a gradient flows from the loss to a parameter, in order, identities left out."""
    active = {name for name, leaf in graph.leaves.items() if leaf.trainable}
    for node in graph.nodes:
        if node.op is not aten.detach.default and node.op not in FLAT and any(r.name in active for r in node.refs()):
            active.add(node.name)
    wanted, path = {graph.output.name}, []
    for node in reversed(graph.nodes):
        if node.name in wanted and node.name in active:
            path.append(node)
            wanted |= {ref.name for ref in node.refs()}
    return [node for node in reversed(path) if node.op not in IDENTITIES]


def formulas(graph: Graph, *, lines: bool) -> list[tuple[Any, ...]]:
    """What each node is, in which modules and custom Function, and on which line."""
    path = gradient_path(graph)
    names = [str(node.op).split(".")[1] for node in path]
    sources = [(node.source.file, node.source.line) if node.source and lines else None for node in path]
    return [
        (SAME.get(name, name), node.stack, node.function, source)
        for name, node, source in zip(names, path, sources, strict=True)
    ]


@both_captures
def test_tape_and_export_see_the_same_formulas_in_the_same_modules_on_the_same_lines(model: ZooModel):
    graphs = capture(*model.build()), capture_by_tape(*model.build())
    assert ["export", "tape"] == [graph.origin for graph in graphs]
    exported, taped = (formulas(graph, lines=model.name not in OTHER_BRANCH) for graph in graphs)
    assert Counter(exported) == Counter(taped)
    ordered = [[each for each in found if each[0] not in UNORDERED] for found in (exported, taped)]
    assert ordered[0] == ordered[1] or model.name in OTHER_BRANCH


@every_model
def test_a_tape_reproduces_the_users_values_gradients_and_adjoints(model: ZooModel):
    module, loss, batch = model.build()
    torch.manual_seed(1)
    tape = record(module, loss, batch)
    assert {} == disagreements(tape, ulps=256)
    torch.manual_seed(1)
    loss(module, batch).backward()
    assert [] == wrong_gradients(tape, module)
    narrowest = max(torch.finfo(adjoint.dtype).eps for adjoint in tape.adjoints.values())
    assert max(residuals(tape).values()) < 64 * narrowest


@every_model
def test_the_float64_run_of_a_tape_is_exact_to_float64(model: ZooModel):
    if model.name == "hf_mixtral":
        with pytest.raises(CaptureError, match="float64"):  # torch's grouped matrix product takes none, and it is said
            record(*model.build(), dtype=torch.float64)
        return
    tape = record(*model.build(), dtype=torch.float64)
    assert {torch.float64} == {adjoint.dtype for adjoint in tape.adjoints.values()}
    assert max(residuals(tape).values()) < 1e-12
