"""Reverse mode: the gradient of every entry is autograd's, of tied, broadcast, unused and twice-used parameters too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from chainrule.autodiff import evaluate, jvp, loss_of, reverse, value_and_grad
from chainrule.capture import capture, promote
from chainrule.compare.by_autograd import autograd_value_and_grad
from chainrule.graph import Ref
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch


def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 3])


CASES = {
    "gpt": lambda: (SmallGPT(), next_token_loss, token_batch()),
    "mlp": lambda: (MLP(), class_loss, (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))),
    "cnn": lambda: (BatchNormCNN(), class_loss, images()),
}


@pytest.fixture(scope="module", params=CASES)
def graph(request):
    torch.manual_seed(0)
    return promote(capture(*CASES[request.param]()))


def assert_same(expected, actual):
    assert expected.keys() == actual.keys()
    for path, gradient in expected.items():
        torch.testing.assert_close(actual[path], gradient, rtol=1e-10, atol=1e-15, msg=lambda m, p=path: f"{p}: {m}")


def test_every_entry_of_every_parameter_is_autograds(graph):
    loss, gradients = value_and_grad(graph)
    expected_loss, expected = autograd_value_and_grad(graph)

    torch.testing.assert_close(loss, expected_loss, rtol=1e-14, atol=0)
    assert_same(expected, gradients)


def test_forward_and_reverse_mode_agree_on_a_random_direction(graph):
    values = evaluate(graph)
    adjoints = reverse(graph, values)
    direction = {Ref(leaf.name): torch.randn_like(leaf.value) for leaf in graph.parameters.values()}

    slope = jvp(graph, values, direction)[graph.output]

    expected = sum((adjoints[ref] * v).sum() for ref, v in direction.items() if ref in adjoints)
    torch.testing.assert_close(slope, expected, rtol=1e-11, atol=1e-14)


def test_the_adjoint_system_is_linear_in_what_is_seeded(graph):
    values = evaluate(graph)
    once = reverse(graph, values)
    thrice = reverse(graph, values, seeds={graph.output: 3 * torch.ones_like(loss_of(graph, values))})

    rounding = 1e-14 * max(float(adjoint.abs().max()) for adjoint in once.values())
    for ref, adjoint in once.items():
        torch.testing.assert_close(thrice[ref], 3 * adjoint, rtol=1e-12, atol=rounding)


def test_neither_autograd_nor_a_backward_op_runs_in_the_engine(graph):
    class Watch(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch() as watch:
        _, gradients = value_and_grad(graph)

    assert watch.seen
    assert [] == [name for name in watch.seen if "backward" in name]
    assert all(gradient.grad_fn is None and not gradient.requires_grad for gradient in gradients.values())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, tokens):
        return self.head(self.embed(tokens) * self.frozen)


def test_a_tied_parameter_gets_the_sum_an_unused_one_zero_and_a_frozen_one_nothing():
    model = Tied()
    batch = (torch.tensor([[1, 2, 2], [0, 1, 3]]), torch.tensor([[2, 2, 5], [1, 3, 3]]))
    graph = promote(capture(model, next_token_loss, batch))

    _, gradients = value_and_grad(graph)

    _, expected = autograd_value_and_grad(graph)
    assert {"embed.weight", "unused"} == gradients.keys()
    assert_same(expected, gradients)
    assert float(gradients["unused"].norm()) == 0


def test_new_values_of_leaves_give_the_gradient_there():
    graph = promote(capture(*CASES["mlp"]()))
    moved = {leaf.name: leaf.value + 0.1 for leaf in graph.parameters.values()}

    _, gradients = value_and_grad(graph, moved)

    assert_same(autograd_value_and_grad(graph, moved)[1], gradients)


def test_a_detached_value_passes_no_gradient():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.b(x) * self.a(x).detach()

    graph = promote(capture(Cut(), lambda m, x: F.mse_loss(m(x), torch.ones(3, 2)), torch.randn(3, 2)))

    _, gradients = value_and_grad(graph)

    assert float(gradients["a.weight"].norm()) == 0
    assert float(gradients["b.weight"].norm()) > 0
