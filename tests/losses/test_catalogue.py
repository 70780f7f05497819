"""Every loss of the catalogue: three engines agree on it, it is finite where its naive form is not, its page is whole."""

import inspect
import math

import pytest
import torch
from torch import nn

from chainrule.api import capture, numerical_gradient, value_and_grad
from chainrule.errors import ConfigError
from chainrule.losses import CATALOGUE, loss_named

each_loss = pytest.mark.parametrize("loss", CATALOGUE, ids=lambda loss: loss.name)
each_naive = pytest.mark.parametrize(
    "loss", [loss for loss in CATALOGUE if loss.naive is not None], ids=lambda loss: loss.name
)


def drawn(loss, seed=0):
    return dict(loss.draw(torch.Generator().manual_seed(seed)))


def by_autograd(function, inputs, moves):
    """The loss and its gradient of every argument that moves."""
    given = {name: x.clone().requires_grad_() if name in moves else x for name, x in inputs.items()}
    value = function(**given)
    return value.detach(), dict(zip(moves, torch.autograd.grad(value, [given[name] for name in moves]), strict=True))


class Arguments(nn.Module):
    """The arguments of a loss that move, as parameters of a model."""

    def __init__(self, loss, inputs):
        super().__init__()
        for name in loss.moves:
            self.register_parameter(name, nn.Parameter(inputs[name].clone()))
        self.function = loss.function

    def forward(self, rest):
        return self.function(**dict(self.named_parameters()), **rest)


@each_loss
def test_chain_rule_and_finite_differences_give_autograds_gradient(loss):
    inputs = drawn(loss)
    expected, gradients = by_autograd(loss.function, inputs, loss.moves)
    rest = {name: tensor for name, tensor in inputs.items() if name not in loss.moves}
    graph = capture(Arguments(loss, inputs), lambda model, batch: model(batch), rest)
    value, by_rules = value_and_grad(graph)

    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-15)
    for name, gradient in gradients.items():
        numerical = numerical_gradient(graph, name)
        torch.testing.assert_close(by_rules[name], gradient, rtol=1e-12, atol=1e-14)
        assert bool(((numerical.gradient - gradient).abs() <= numerical.bar + 1e-11).all())
        assert gradient.norm() > 1e-3, "a gradient of zero proves nothing"


@each_naive
def test_the_stable_form_is_finite_where_the_naive_one_is_not(loss):
    at = dict(loss.naive.at())
    naive_value, naive_gradients = by_autograd(loss.naive.function, at, loss.moves)
    value, gradients = by_autograd(loss.function, at, loss.moves)

    assert not all(math.isfinite(x) for g in (naive_value, *naive_gradients.values()) for x in g.flatten().tolist())
    assert all(math.isfinite(x) for g in (value, *gradients.values()) for x in g.flatten().tolist())


@each_naive
def test_elsewhere_naive_and_stable_form_are_the_same(loss):
    inputs = drawn(loss)
    settings = {"temperature": 0.01} if loss.name == "info-nce" else {}
    if loss.name in ("hierarchical-softmax", "negative-sampling"):  # the naive forms know no padding and no repeats
        inputs = {name: x[:1] if name not in ("node_MD", "output_VD") else x for name, x in inputs.items()}
    scale = 1.0
    if loss.name == "binary-focal":  # without the weight α
        settings, scale = {"alpha": 0.5}, 2.0

    torch.testing.assert_close(
        scale * loss.function(**inputs, **settings), loss.naive.function(**inputs), rtol=1e-6, atol=1e-9
    )


@each_loss
def test_along_its_curve_the_loss_is_finite(loss):
    line = torch.linspace(loss.curve.low, loss.curve.high, 9, dtype=torch.float64)
    losses = [loss.function(**loss.curve.at(x)) for x in line]

    assert all(loss.dim() == 0 and bool(loss.isfinite()) for loss in losses)
    assert len({float(loss) for loss in losses}) > 2


@each_loss
def test_the_docstring_gives_the_formula_and_the_gradient(loss):
    first = inspect.getdoc(loss.function).splitlines()[0]

    assert first.startswith("L = ")
    assert "dL/d" in first


@each_loss
def test_every_loss_is_found_by_its_name(loss):
    assert loss is loss_named(loss.name)


def test_a_name_is_written_with_hyphens():
    assert "log-cosh" in [loss.name for loss in CATALOGUE]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^no loss is called 'hubert'; did you mean huber\?$"):
        loss_named("hubert")


def test_a_name_unlike_any_is_refused_with_all_of_them():
    with pytest.raises(ConfigError, match=r"^no loss is called 'xyz'; known are mse, mae, .*hierarchical-softmax$"):
        loss_named("xyz")
