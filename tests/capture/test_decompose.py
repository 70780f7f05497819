"""Formulas that are decomposed once for each kind give the graph that torch gives for the whole program."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.capture.batches import tensors_of
from chainrule.capture.decompose import decomposed
from chainrule.capture.export import LossModule
from chainrule.capture.nodes import Converted, convert
from chainrule.capture.passes import prepare
from chainrule.graph import Ref
from zoo.case import ZooModel
from zoo.hf import HF
from zoo.models import OWN

pytestmark = pytest.mark.filterwarnings("ignore")  # those of torch.export, which `capture` silences
# Both graphs are made of each: some models of every kind.
NAMES = ("gpt_dropout", "gpt_explicit", "tied_lm", "vit", "vae", "lstm_lm", "unet", "graph_net", "in_place", "autocast")
HF_NAMES = ("hf_gpt2", "hf_llama", "hf_mamba", "hf_swin")
ZOO = [model for model in OWN if model.name in NAMES]
ZOO += [pytest.param(model, marks=pytest.mark.hf) for model in HF if model.name in HF_NAMES]


def program_of(model, loss, batch):
    wrapper = LossModule(model, loss, batch)
    with torch.compiler.set_stance("force_eager"):
        program = torch.export.export(wrapper, tuple(tensors_of(batch).values()), strict=False)
    prepare(program.graph_module)
    return program


def converted(program, graph) -> Converted:
    specs = program.graph_signature.input_specs
    return convert(graph, {spec.arg.name: Ref(spec.target or spec.arg.name) for spec in specs})


def comparable(graph: Converted):
    """Nodes with their names replaced by their places, and layouts beside."""
    places = {node.name: f"#{i}" for i, node in enumerate(graph.nodes)}

    def renamed(value):
        if isinstance(value, Ref):
            return Ref(places.get(value.name, value.name), value.index)
        return tuple(map(renamed, value)) if isinstance(value, tuple) else repr(value)

    def layout(value):
        return (value.shape, value.stride()) if isinstance(value, torch.Tensor) else tuple(map(layout, value or ()))

    nodes = [
        (node.op, {name: renamed(value) for name, value in node.arguments.items()}, node.spec, node.stack, node.source)
        for node in graph.nodes
    ]
    return nodes, [layout(graph.layouts[node.name]) for node in graph.nodes], [renamed(o) for o in graph.outputs]


def both(program):
    whole = program.run_decompositions({})
    return comparable(converted(whole, whole.graph)), comparable(converted(*decomposed(program)))


@pytest.mark.parametrize("zoo_model", ZOO, ids=str)
def test_the_graph_is_that_of_the_whole_program(zoo_model: ZooModel):
    expected, found = both(program_of(*zoo_model.build()))

    assert expected == found


def is_kind_by_kind(loss, *tensors, model=None):
    program = program_of(model or nn.Linear(3, 3), lambda model, batch: loss(model, *batch), list(tensors))
    expected, found = both(program)
    assert expected == found
    return decomposed(program)[0] is program


def test_constants_that_are_equal_and_of_two_types_are_two_kinds():
    def loss(model, x):
        whole, real = torch.arange(3), torch.arange(3.0)
        return (model(x) * whole + x * real).sum() + (x + 1).sum() + (x + 1.0).sum() + (x + True).sum()

    assert is_kind_by_kind(loss, torch.randn(2, 3))


def test_one_tensor_may_stand_at_two_places():
    assert is_kind_by_kind(
        lambda model, x: (model(x) * model(x) + x * x - torch.stack([x, x]).sum(0)).sum(), torch.ones(2, 3)
    )


def test_a_formula_may_give_its_own_argument():
    def loss(model, x):
        return (model(x.contiguous().to(torch.float32)).reshape(-1).reshape(6) ** 2).sum()

    assert is_kind_by_kind(loss, torch.ones(2, 3))


def test_formulas_with_several_outputs_keep_them_apart():
    def loss(model, x):
        first, second = model(x).split([1, 2], dim=1)
        best, place = second.max(dim=1)
        return (first.squeeze(1) - best).pow(2).sum() + place.sum()

    assert is_kind_by_kind(loss, torch.randn(2, 3))


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, x: model(x).relu_().sum(),
        lambda model, x: torch.zeros(3).index_fill_(0, torch.tensor([1]), 2.0).add(model(x)).sum(),
    ],
    ids=["in place", "a constant in place"],
)
def test_a_program_that_writes_is_decomposed_whole(loss):
    assert not is_kind_by_kind(loss, torch.randn(2, 3))


def test_running_statistics_are_written_without_a_word_and_make_a_program_whole():
    model = nn.BatchNorm1d(3, momentum=None)
    model.num_batches_tracked = None

    assert not is_kind_by_kind(lambda model, x: (model(x) ** 3).sum(), torch.randn(4, 3), model=model)


def test_a_block_without_gradient_makes_a_program_whole():
    def loss(model, x):
        with torch.no_grad():
            scale = model(x).abs().max()
        return (model(x) / scale).sum()

    assert not is_kind_by_kind(loss, torch.randn(2, 3))


def test_attention_that_would_take_another_kernel_by_itself_makes_a_program_whole():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.randn(4, 4))

    def loss(model, q):
        return (
            F.scaled_dot_product_attention(q, q, q, attn_mask=model.bias[None, None] * 1)
            .transpose(1, 2)
            .reshape(-1)
            .sum()
        )

    assert not is_kind_by_kind(loss, torch.randn(2, 4, 2, 8).transpose(1, 2), model=Attention())
