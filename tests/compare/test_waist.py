"""The gradient of a whole weight matrix from differences at its waist."""

import pytest
import torch
from torch import nn

from chainrule.autodiff import evaluate
from chainrule.capture import capture
from chainrule.compare.entries import numerical_entries
from chainrule.compare.linear_region import LinearStep
from chainrule.compare.transposed import TRANSPOSED, transposed
from chainrule.compare.waist import choose_waist, contract, numerical_at_waist
from chainrule.errors import ChainruleError, ConfigError
from chainrule.graph import Node, Ref, Spec, bind_arguments
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, squared_loss, token_batch

aten = torch.ops.aten


def gpt(**settings):
    torch.manual_seed(0)
    return SmallGPT(**{"width": 32, "layers": 2, **settings}).double(), next_token_loss, token_batch(32, 1, 8)


def autograd(model, loss, batch):
    model.zero_grad()
    loss(model, batch).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("method", ["central", "order8"])
@pytest.mark.parametrize("part", ["value", "out", "query", "up", "down"])
def test_the_gradient_of_each_kind_of_matrix_agrees_with_autograd_within_its_bar(part, method):
    model, loss, batch = gpt()
    name = f"blocks.0.{part}.weight"
    exact = autograd(model, loss, batch)[name]

    found = numerical_at_waist(capture(model, loss, batch), name, method=method)

    error = (found.gradient - exact).abs()
    assert bool((error <= found.bar).all())
    assert float(error.max()) < {"central": 1e-7, "order8": 1e-10}[method] * float(exact.abs().max())
    if method == "central":
        assert float((found.gradient - exact).norm()) <= float(found.bar.max())


def test_the_values_are_those_of_the_differences_entry_by_entry():
    model, loss, batch = gpt(activation=nn.ReLU)
    graph = capture(model, loss, batch)
    entries = [(0, 0), (5, 7), (31, 31)]

    by_entry = numerical_entries(graph, "blocks.1.value.weight", entries=entries)
    at_waist = numerical_at_waist(graph, "blocks.1.value.weight", method="order8")

    for entry in entries:
        difference = abs(float(by_entry.gradient[entry] - at_waist.gradient[entry]))
        assert difference <= float(by_entry.bar[entry] + at_waist.bar[entry])


def test_the_waist_of_w_v_needs_tokens_times_width_differences_and_says_so():
    model, loss, batch = gpt()
    found = numerical_at_waist(capture(model, loss, batch), "blocks.0.value.weight")

    assert 2 * 8 * 32 < found.evaluations < 2 * 8 * 32 + 200
    assert "256 differences at the waist" in found.reason
    assert "in place of 1,024" in found.reason


def test_a_pooled_network_has_its_waist_behind_the_pooling():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Linear(6, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x_BTD):
            return self.head(self.features(x_BTD).mean(dim=1).relu())

    torch.manual_seed(0)
    model, batch = Pooled().double(), (torch.randn(2, 10, 6, dtype=torch.float64), torch.tensor([1, 2]))
    graph = capture(model, class_loss, batch)
    base = evaluate(graph)

    waist = choose_waist(graph, Ref(graph.parameters["features.weight"].name), base)
    found = numerical_at_waist(graph, "features.weight", method="order8")

    assert torch.ops.aten.mean.dim == graph.node(waist.ref.name).op
    exact = autograd(model, class_loss, batch)["features.weight"]
    assert bool(((found.gradient - exact).abs() <= found.bar).all())


def test_a_small_parameter_is_its_own_waist():
    model, loss, batch = gpt()
    graph = capture(model, loss, batch)
    bias = Ref(graph.parameters["blocks.0.up.bias"].name)

    waist = choose_waist(graph, bias, evaluate(graph))

    assert bias == waist.ref
    assert "no smaller waist" in waist.reason


def test_a_tied_weight_whose_uses_meet_only_in_the_loss_is_its_own_waist():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(32, 16)
            self.head = nn.Linear(16, 32, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.embedding(tokens)))

    torch.manual_seed(0)
    model, batch = Tied().double(), token_batch(32, 1, 4)
    graph = capture(model, next_token_loss, batch)
    (leaf,) = graph.parameters.values()

    assert Ref(leaf.name) == choose_waist(graph, Ref(leaf.name), evaluate(graph)).ref
    found = numerical_at_waist(graph, leaf.path)
    exact = autograd(model, next_token_loss, batch)["embedding.weight"]
    assert float((found.gradient - exact).norm()) <= float(found.bar.max())


@pytest.mark.parametrize(
    "case",
    [
        lambda: (MLP((5, 64, 64, 3)).double(), squared_loss, (torch.randn(7, 5).double(), torch.randn(7, 3).double())),
        lambda: (BatchNormCNN().double(), class_loss, (torch.randn(2, 3, 6, 6).double(), torch.tensor([0, 3]))),
    ],
    ids=["mlp", "batch-norm cnn"],
)
def test_every_parameter_of_other_networks_agrees_with_autograd(case):
    torch.manual_seed(0)
    model, loss, batch = case()
    exact = autograd(model, loss, batch)
    graph = capture(model, loss, batch)
    biggest = max(float(g.abs().max()) for g in exact.values())
    for name, gradient in exact.items():
        found = numerical_at_waist(graph, name, method="order8")
        assert float((found.gradient - gradient).abs().max()) < 1e-9 * biggest, name


def scale_transpose(monkeypatch):
    right = TRANSPOSED[aten.linear.default]
    monkeypatch.setitem(TRANSPOSED, aten.linear.default, lambda g, a, name: 1.001 * right(g, a, name))


def test_a_transpose_that_is_off_by_one_part_in_a_thousand_is_refused(monkeypatch):
    graph = capture(*gpt())
    scale_transpose(monkeypatch)

    with pytest.raises(ChainruleError, match=r"and its transpose do not fit together"):
        numerical_at_waist(graph, "blocks.0.value.weight")


def test_a_wrong_contraction_shows_in_the_bar_of_the_central_method(monkeypatch):
    model, loss, batch = gpt()
    graph = capture(model, loss, batch)
    name = "blocks.0.value.weight"
    waist = choose_waist(graph, Ref(graph.parameters[name].name), evaluate(graph))
    exact = autograd(model, loss, batch)[name]
    scale_transpose(monkeypatch)

    found = numerical_at_waist(graph, name, waist=waist)

    error = float((found.gradient - exact).norm())
    assert error > 1e-4 * float(exact.norm())
    assert error <= float(found.bar.max())


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="expected central or order8"):
        numerical_at_waist(capture(*gpt()), "blocks.0.value.weight", method="forward")


def r(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SAMPLES = {
    aten.linear.default: [("weight", (r(2, 4, 3), r(5, 3, seed=1), r(5))), ("input", (r(2, 4, 3), r(5, 3), None))],
    aten.mm.default: [("self", (r(4, 3), r(3, 5))), ("mat2", (r(4, 3), r(3, 5)))],
    aten.bmm.default: [("self", (r(2, 4, 3), r(2, 3, 5))), ("mat2", (r(2, 4, 3), r(2, 3, 5)))],
    aten.matmul.default: [("self", (r(2, 4, 3), r(3, 5))), ("other", (r(2, 4, 3), r(3, 5)))],
    aten.add.Tensor: [("other", (r(2, 4), r(4), 2.0)), ("self", (r(4), r(2, 4)))],
    aten.sub.Tensor: [("other", (r(2, 4), r(4), 2.0)), ("self", (r(4), r(2, 4)))],
    aten.mul.Tensor: [("other", (r(2, 4), r(4))), ("self", (r(2, 4), r(4)))],
    aten.mul.Scalar: [("self", (r(4), 3.0))],
    aten.div.Tensor: [("self", (r(4), r(2, 4, seed=1)))],
    aten.div.Scalar: [("self", (r(4), 3.0))],
    aten.view.default: [("self", (r(2, 6), [3, 4]))],
    aten._unsafe_view.default: [("self", (r(2, 6), [3, 4]))],
    aten.reshape.default: [("self", (r(2, 6), [3, 4]))],
    aten.flatten.using_ints: [("self", (r(2, 3, 2), 1, 2))],
    aten.unsqueeze.default: [("self", (r(2, 3), 1))],
    aten.squeeze.dim: [("self", (r(2, 1), 1))],
    aten.squeeze.dims: [("self", (r(2, 1), [1]))],
    aten.transpose.int: [("self", (r(2, 3, 4), 0, 2))],
    aten.permute.default: [("self", (r(2, 3, 4), [2, 0, 1]))],
    aten.t.default: [("self", (r(2, 3),))],
    aten.clone.default: [("self", (r(3),))],
    aten.alias.default: [("self", (r(3),))],
    aten.contiguous.default: [("self", (r(3),))],
    aten.expand.default: [("self", (r(3, 1), [2, 3, 4]))],
    aten.scaled_dot_product_attention.default: [
        ("value", (r(2, 2, 5, 4), r(2, 2, 5, 4, seed=1), r(2, 2, 5, 3), None, 0.0, True)),
        ("value", (r(1, 4, 5, 4), r(1, 2, 5, 4, seed=1), r(1, 2, 5, 3), None, 0.0, False, None, True)),
    ],
    aten.mean.default: [("self", (r(3, 4),))],
    aten.mean.dim: [("self", (r(3, 4, 2), [0, -1])), ("self", (r(3, 4), [1], True))],
    aten.sum.default: [("self", (r(3, 4),))],
    aten.sum.dim_IntList: [("self", (r(3, 4, 2), [0, -1])), ("self", (r(3, 4), [1], True))],
    aten.select.int: [("self", (r(3, 4), 1, 2))],
    aten.slice.Tensor: [("self", (r(3, 8), 1, 1, 7, 2))],
    aten.embedding.default: [("weight", (r(5, 3), torch.tensor([[1, 4], [1, 0]]), 0))],
}


@pytest.mark.parametrize("op", sorted(TRANSPOSED, key=str), ids=str)
def test_each_transpose_fits_its_op(op):
    for name, sample in SAMPLES[op]:
        arguments = bind_arguments(op, sample, {})
        moved = Ref("x")
        y = op(**arguments)
        node = Node("y", op, {**arguments, name: moved}, Spec(tuple(y.shape), y.dtype))
        base = {"x": arguments[name], "y": y}
        e, g = r(*arguments[name].shape, seed=3), r(*y.shape, seed=4)
        if op == aten.embedding.default:
            e[0] = 0  # the padding row is held

        (there,) = LinearStep(node, frozenset({moved}), base)({moved: e}).values()
        (back,) = transposed(LinearStep(node, frozenset({moved}), base), g, base).values()

        assert float((there * g).sum()) == pytest.approx(float((e * back).sum()), rel=1e-12)


def test_the_absolute_contraction_bounds_the_plain_one():
    model, loss, batch = gpt()
    graph = capture(model, loss, batch)
    base = evaluate(graph)
    waist = choose_waist(graph, Ref(graph.parameters["blocks.0.value.weight"].name), base)
    bars = r(*base[waist.ref.name].shape).abs()
    errors = bars * torch.sign(r(*bars.shape, seed=1))

    assert bool((contract(waist, errors, base).abs() <= contract(waist, bars, base, absolute=True)).all())
