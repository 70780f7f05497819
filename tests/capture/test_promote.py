"""True float64: nothing inside the promoted graph is narrower, so differences of its loss are exact enough."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from capture.graph_runs import Computed, autograd_of, captured, run_graph, squared
from chainrule.autodiff import evaluate
from chainrule.capture import capture, promote
from chainrule.errors import CaptureError
from chainrule.graph import Graph, Spec

X = torch.linspace(-1, 1, 20).view(5, 4)
aten = torch.ops.aten


def float_dtypes(graph: Graph) -> set[torch.dtype]:
    specs = [s for node in graph.nodes for s in ((node.spec,) if isinstance(node.spec, Spec) else node.spec) if s]
    used = {spec.dtype for spec in specs} | {leaf.value.dtype for leaf in graph.leaves.values()}
    return {dtype for dtype in used if dtype.is_floating_point or dtype.is_complex}


def assert_specs_are_true(graph: Graph) -> None:
    values = evaluate(graph)
    for node in graph.nodes:
        specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
        outputs = (values[node.name],) if isinstance(node.spec, Spec) else values[node.name]
        for spec, value in zip(specs, outputs, strict=True):
            assert spec is None or (spec.shape, spec.dtype) == (tuple(value.shape), value.dtype), node.name


CASES = {
    "plain": lambda m, x: m.linear(x),
    "a cast in a norm": lambda m, x: F.rms_norm(m.linear(x).float(), (4,)).to(x.dtype),
    "half precision inside": lambda m, x: (m.linear(x).bfloat16() * m.weight.half().bfloat16()).float(),
    "autocast": lambda m, x: autocast(m, x),
    "dtype arguments": lambda m, x: torch.softmax(m.linear(x), -1, dtype=torch.float32) + x.sum(0, dtype=torch.float32),
    "created tensors": lambda m, x: (
        m.linear(x) * torch.arange(4, dtype=torch.float32) + torch.full((4,), 0.1) + torch.ones(4)
    ),
    "a mask of huge numbers": lambda m, x: torch.softmax(
        m.linear(x) + torch.full((5, 4), torch.finfo(x.dtype).min).triu(1), -1
    ),
    "integers that become floats": lambda m, x: m.linear(x) * (torch.arange(4) / 3) + torch.arange(1, 5).rsqrt(),
    "a number times integers": lambda m, x: m.linear(x) * (torch.arange(4) * 0.1) + torch.arange(4).float().mean(),
    "where of two numbers": lambda m, x: m.linear(x) * torch.where(x > 0, 1.1, 0.3),
    "type_as": lambda m, x: m.linear(x) * torch.arange(4).type_as(x) + torch.tensor(0.1).type_as(m.weight),
    "complex numbers": lambda m, x: rotated(m, x),
    "a table of logarithms": lambda m, x: m.linear(x) * torch.log(torch.arange(1, 5)),
    "dropout": lambda m, x: F.dropout(m.linear(x), 0.5),
    "batch norm": lambda m, x: F.batch_norm(m.linear(x), m.mean.clone(), m.mean.clone(), training=True),
}


def autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.linear(x) * m.weight


def rotated(m, x):
    pairs = torch.view_as_complex(m.linear(x).view(5, 2, 2).float().contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones(2), torch.arange(2.0))).flatten(1)


@pytest.mark.parametrize("name", CASES)
def test_nothing_narrow_is_left_and_the_loss_moves_by_rounding_alone(name):
    graph = captured(Computed(CASES[name]), squared, X)
    narrow = torch.bfloat16 in float_dtypes(graph) or torch.float16 in float_dtypes(graph)

    wide = promote(graph)

    assert {torch.float64, torch.complex128} >= float_dtypes(wide)
    assert_specs_are_true(wide)
    assert math.isclose(run_graph(graph).item(), run_graph(wide).item(), rel_tol=2e-2 if narrow else 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_difference_of_the_promoted_loss_is_its_derivative(name):
    wide = promote(captured(Computed(CASES[name]), squared, X))
    gradients = autograd_of(wide)
    direction = {path: torch.randn_like(gradient) for path, gradient in gradients.items()}

    def loss_at(h: float) -> float:
        moved = {leaf.name: leaf.value + h * direction[leaf.path] for leaf in wide.parameters.values()}
        return run_graph(wide, moved).item()

    h = 1e-4
    difference = (8 * (loss_at(h) - loss_at(-h)) - loss_at(2 * h) + loss_at(-2 * h)) / (12 * h)
    slope = sum((gradients[path] * direction[path]).sum().item() for path in gradients)
    size = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert abs(difference - slope) <= 1e-8 * max(size, 1.0)


def test_integers_and_booleans_stay_as_they_are():
    graph = promote(
        capture(Computed(lambda m, x: m.linear(x)[torch.arange(3)].masked_fill(x[:3] > 0, 0.0)), squared, X)
    )

    assert {torch.int64, torch.bool} <= {node.spec.dtype for node in graph.nodes}


def test_a_float64_graph_is_promoted_to_itself():
    model = Computed(CASES["plain"]).double()

    graph = capture(model, squared, X.double())

    assert run_graph(graph).item() == run_graph(promote(graph)).item()


def test_float32_is_a_target_too():
    wide = promote(capture(Computed(CASES["dtype arguments"]), squared, X))

    assert {torch.float32} == float_dtypes(promote(wide, torch.float32))


def test_reading_bits_is_refused():
    graph = capture(Computed(lambda m, x: m.linear(x) * x.view(torch.int32).clamp(0, 1)), squared, X)

    with pytest.raises(CaptureError, match=r"test_promote\.py:\d+: view\(torch\.int32\) reads the bits of a tensor"):
        promote(graph)


@pytest.mark.hf
def test_a_llamas_difference_is_noise_after_double_and_exact_on_the_promoted_graph():
    """The measured fact behind promotion: `model.double()` leaves float32 casts in norm and loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, intermediate_size=24, max_position_embeddings=16, **sizes))
    ids = torch.randint(40, (2, 8))
    batch = {"input_ids": ids, "labels": ids}

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(**batch).loss

    graph = promote(capture(model, loss, batch))
    leaf = graph.parameters["model.layers.0.self_attn.v_proj.weight"]
    direction, h = torch.randn_like(leaf.value), 1e-6
    slope = float((autograd_of(graph)[leaf.path] * direction).sum())

    def promoted_at(step: float) -> float:
        return run_graph(graph, {leaf.name: leaf.value + step * direction}).item()

    def doubled_at(step: float) -> float:
        weight = model.get_parameter(leaf.path)
        with torch.no_grad():
            weight.copy_(leaf.value + step * direction)
            return loss(model, batch).item()

    exact = (promoted_at(h) - promoted_at(-h)) / (2 * h)
    model.double()
    noisy = (doubled_at(h) - doubled_at(-h)) / (2 * h)

    assert abs(exact - slope) < 1e-7 * abs(slope)
    assert abs(noisy - slope) > 1e-2 * abs(slope)
