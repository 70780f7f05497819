"""The numerical gradient entry by entry, against autograd."""

import pytest
import torch
from torch import nn

from chainrule.autodiff import evaluate, loss_of
from chainrule.capture import capture, promote
from chainrule.compare.entries import numerical_entries
from chainrule.errors import ChainruleError, ConfigError
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, squared_loss, token_batch


def autograd(model, loss, batch):
    model.zero_grad()
    loss(model, batch).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def gpt_case(**settings):
    torch.manual_seed(0)
    model = SmallGPT(**settings).double()
    return model, next_token_loss, token_batch()


def mlp_case():
    torch.manual_seed(0)
    return (
        MLP().double(),
        squared_loss,
        (torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)),
    )


def cnn_case():
    torch.manual_seed(0)
    return (
        BatchNormCNN().double(),
        class_loss,
        (torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(0, 5, (6,))),
    )


CASES = {
    "gpt": gpt_case,
    "relu gpt": lambda: gpt_case(activation=nn.ReLU),
    "small-weight gpt": lambda: gpt_case(std=0.02),
    "wide gpt": lambda: gpt_case(width=64, layers=1, vocabulary=32),
    "mlp": mlp_case,
    "batch-norm cnn": cnn_case,
}


def sample(tensor, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(tensor.numel(), generator=generator)[:count]
    return [tuple(int(i) for i in torch.unravel_index(position, tensor.shape)) for position in flat]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("method", "tolerance"), [("order8", 1e-9), ("central", 1e-6), ("complex", 1e-12)])
def test_every_parameter_agrees_with_autograd_and_lies_inside_its_bar(case, method, tolerance):
    model, loss, batch = CASES[case]()
    graph = capture(model, loss, batch)
    exact = autograd(model, loss, batch)
    biggest = max(float(g.abs().max()) for g in exact.values())
    inside = total = 0
    for name, gradient in exact.items():
        entries = sample(gradient)
        found = numerical_entries(graph, name, method=method, entries=entries)
        places = tuple(torch.tensor(entries).T)
        error = (found.gradient[places] - gradient[places]).abs()
        # Autograd rounds as well; 1e-16 of the largest gradient is not ours to explain.
        inside += int((error <= found.bar[places] + 1e-15 * biggest).sum())
        total += len(entries)
        assert float(error.max()) <= tolerance * biggest, name

    assert inside >= 0.995 * total


def test_all_entries_of_a_weight_matrix_at_once():
    model, loss, batch = gpt_case(width=64, layers=1)
    exact = autograd(model, loss, batch)["blocks.0.value.weight"]

    found = numerical_entries(capture(model, loss, batch), "blocks.0.value.weight", method="central")

    assert float((found.gradient - exact).norm()) < 1e-7 * float(exact.norm())
    assert float((found.gradient - exact).norm()) < float(found.bar.max())
    assert 2 * 64 * 64 < found.evaluations < 2 * 64 * 64 + 200
    assert "one column of which moves with an entry" in found.reason


def test_forward_is_the_textbook_loop_bit_for_bit():
    model, loss, batch = mlp_case()
    graph = capture(model, loss, batch)
    name, h = "layers.2.weight", 1e-5
    leaf = graph.parameters[name]
    current = loss_of(graph, evaluate(graph))

    found = numerical_entries(graph, name, method="forward", h=h)

    for i, j in [(0, 0), (3, 5), (15, 15)]:
        weight = leaf.value.clone()
        weight[i, j] += h
        plus = loss_of(graph, evaluate(graph, {leaf.name: weight}))
        assert plus == found.loss_plus[i, j]
        assert (plus - current) / h == found.gradient[i, j]
    assert current == found.loss_current
    assert found.bar is None
    assert leaf.value.numel() + 1 == found.evaluations
    assert torch.equal(leaf.value, model.get_parameter(name))


def test_forward_chooses_a_step_and_says_why():
    model, loss, batch = mlp_case()

    found = numerical_entries(capture(model, loss, batch), "layers.0.bias", method="forward")

    assert 1e-10 < found.h < 1e-6
    assert "truncation and round-off are equal there" in found.reason
    exact = autograd(model, loss, batch)["layers.0.bias"]
    assert float((found.gradient - exact).abs().max()) < 1e-6


def test_the_entries_not_asked_for_are_nan():
    model, loss, batch = mlp_case()
    found = numerical_entries(capture(model, loss, batch), "layers.0.weight", entries=[(1, 2), (-1, 0)])

    assert 2 == int(torch.isfinite(found.gradient).sum())
    assert torch.isfinite(found.gradient[1, 2])
    assert torch.isfinite(found.gradient[15, 0])


def test_a_tied_weight_gets_the_sum_of_both_uses():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens):
            return self.head(torch.tanh(self.embedding(tokens)))

    torch.manual_seed(0)
    model, batch = Tied().double(), token_batch(11)
    exact = autograd(model, next_token_loss, batch)["embedding.weight"]
    graph = capture(model, next_token_loss, batch)

    found = numerical_entries(graph, graph.leaves[next(iter(graph.parameters.values())).name].path)

    assert float((found.gradient - exact).abs().max()) < 1e-11


def test_rows_of_an_embedding_that_nobody_looks_up_are_zero_and_cost_nothing():
    model, loss, batch = gpt_case()
    tokens = batch[0] % 4, batch[1]
    graph = capture(model, loss, tokens)
    found = numerical_entries(graph, "embedding.weight")

    assert 0.0 == float(found.gradient[4:].abs().max())
    assert 0.0 < float(found.gradient[:4].abs().min())
    assert found.evaluations < 17 * 4 * 16 + 50


def test_a_bar_that_is_too_wide_is_tried_again_at_another_step():
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

        def forward(self, x):
            return torch.sin(60 * self.weight * x)

    model, batch = Steep(), torch.ones(3, dtype=torch.float64)
    exact = autograd(model, lambda m, x: m(x).sum(), batch)["weight"]

    found = numerical_entries(capture(model, lambda m, x: m(x).sum(), batch), "weight")

    assert found.evaluations > 3 * 8 + 9
    assert float(found.bar.max()) < 1e-6 * float(exact.abs().max())
    assert bool(((found.gradient - exact).abs() <= found.bar).all())


def test_the_model_and_the_graph_are_left_as_they_were():
    model, loss, batch = gpt_case()
    before = {name: p.clone() for name, p in model.named_parameters()}
    graph = capture(model, loss, batch)
    for method in ("forward", "central", "order8", "complex"):
        numerical_entries(graph, "blocks.1.value.weight", method=method, entries=[(0, 0)])

    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(leaf.value, before[path]) for path, leaf in graph.parameters.items())


def test_an_unknown_parameter_is_refused_with_the_nearest_name():
    graph = capture(*mlp_case())
    with pytest.raises(
        ConfigError, match=r"no trainable parameter 'layers.2.wieght'; did you mean 'layers.2.weight'\?"
    ):
        numerical_entries(graph, "layers.2.wieght")


def test_an_unknown_method_is_refused_with_the_four_names():
    with pytest.raises(ConfigError, match="expected one of forward, central, order8, complex"):
        numerical_entries(capture(*mlp_case()), "layers.2.weight", method="backward")


def test_an_entry_outside_the_parameter_is_refused():
    with pytest.raises(ConfigError, match=r"layers.2.weight has no entry \[16, 0\]; its shape is \[16, 16\]"):
        numerical_entries(capture(*mlp_case()), "layers.2.weight", entries=[(16, 0)])


def test_a_float32_graph_is_refused():
    torch.manual_seed(0)
    graph = capture(SmallGPT(), next_token_loss, token_batch())
    with pytest.raises(ChainruleError, match=r"expected torch.float64.*promote"):
        numerical_entries(graph, "head.weight")


def test_the_complex_step_refuses_an_op_that_has_no_complex_formula():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return torch.special.digamma(x * self.weight)

    graph = promote(capture(Odd(), lambda m, x: m(x).sum(), torch.ones(3, dtype=torch.float64)), torch.float64)
    with pytest.raises(ChainruleError, match=r"complex step cannot pass aten.special_digamma.default.*method='order8'"):
        numerical_entries(graph, "weight", method="complex")
