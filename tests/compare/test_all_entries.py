"""The gradient of every parameter by finite differences, good enough to train with."""

import pytest
import torch

from chainrule.capture import bind, capture
from chainrule.compare.all_entries import numerical_value_and_grad
from chainrule.errors import ChainruleError
from small_models import MLP, SmallGPT, next_token_loss, squared_loss, token_batch


def train(model, loss, batches, gradient):
    """Losses of AdamW steps with gradients by `gradient(model, batch) -> (value, {name: gradient})`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in batches:
        value, gradients = gradient(model, batch)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clone()
        optimizer.step()
        losses.append(float(value))
    return torch.tensor(losses, dtype=torch.float64)


def by_autograd(loss):
    def gradient(model, batch):
        model.zero_grad()
        value = loss(model, batch)
        value.backward()
        return value.detach(), {name: p.grad for name, p in model.named_parameters()}

    return gradient


def by_differences(graph):
    return lambda model, batch: numerical_value_and_grad(graph, bind(graph, model, batch))


def transformer():
    torch.manual_seed(0)
    return SmallGPT(vocabulary=16, width=8, heads=2, layers=1, length=8).double()


def test_the_gradient_of_every_parameter_agrees_with_autograd():
    model, batch = transformer(), token_batch(16, 2, 8)
    value, exact = by_autograd(next_token_loss)(model, batch)

    loss, gradients = numerical_value_and_grad(capture(model, next_token_loss, batch))

    assert float(value) == pytest.approx(float(loss), rel=1e-14)
    assert exact.keys() == gradients.keys()
    biggest = max(float(g.abs().max()) for g in exact.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, exact[name], rtol=0, atol=1e-11 * biggest, msg=name)


@pytest.mark.slow
def test_a_transformer_trained_by_differences_follows_the_one_trained_by_autograd():
    batches = [token_batch(16, 2, 8, seed=seed) for seed in range(20)]
    graph = capture(transformer(), next_token_loss, batches[0])

    expected = train(transformer(), next_token_loss, batches, by_autograd(next_token_loss))
    found = train(transformer(), next_token_loss, batches, by_differences(graph))

    assert expected[-1] < expected[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_an_mlp_trained_by_differences_follows_the_one_trained_by_autograd():
    torch.manual_seed(0)
    batch = torch.randn(9, 5, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    torch.manual_seed(1)
    first = MLP((5, 6, 3)).double()
    torch.manual_seed(1)
    second = MLP((5, 6, 3)).double()

    expected = train(first, squared_loss, [batch] * 30, by_autograd(squared_loss))
    found = train(second, squared_loss, [batch] * 30, by_differences(capture(second, squared_loss, batch)))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_a_model_in_float32_is_refused():
    graph = capture(SmallGPT(), next_token_loss, token_batch())

    with pytest.raises(ChainruleError, match=r"is torch.float32, expected torch.float64.*model.double\(\)"):
        numerical_value_and_grad(graph)
