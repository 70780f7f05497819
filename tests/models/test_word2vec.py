"""Word2Vec's plain formulas: by hand, and by three gradient engines."""

import math

import pytest
import torch
from torch import tensor

from chainrule.engines import chain_rule_engine, numerical_engine
from chainrule.models.word2vec import Word2Vec, full_softmax_loss, hierarchical_loss, negative_sampling_loss
from chainrule.train.engine import autograd

WINDOW = {"window": tensor([[0, 1], [2, 0]]), "present": tensor([[1.0, 1.0], [1.0, 0.0]]).double()}
BATCHES = {
    negative_sampling_loss: {
        **WINDOW,
        "target": tensor([3, 1]),
        "negative": tensor([[2, 2, 0], [1, 0, 3]]),
        "weight": tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]).double(),
    },
    hierarchical_loss: {
        **WINDOW,
        "path": tensor([[0, 1, 2], [0, 1, 0]]),
        "code": tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).double(),
        "on_path": tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]).double(),
    },
    full_softmax_loss: {**WINDOW, "target": tensor([3, 1])},
}


def model_of(outputs=4, dimensions=3, seed=0):
    model = Word2Vec(4, outputs, dimensions).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def gradients(engine, loss):
    model = model_of()
    value = engine(model, loss, BATCHES[loss])
    return value, [parameter.grad for parameter in model.parameters()]


# Allowed of the largest entry: some float64 units (2e-16) by the chain rule; order 8 was 1e-13 off.
@pytest.mark.parametrize("loss", BATCHES)
@pytest.mark.parametrize(("engine", "allowed"), [(chain_rule_engine(), 1e-14), (numerical_engine(), 1e-12)])
def test_three_engines_agree(loss, engine, allowed):
    value, expected = gradients(autograd, loss)
    own, found = gradients(engine, loss)

    assert value.item() == pytest.approx(own.item(), rel=1e-14)
    assert all((a - b).abs().max() <= allowed * a.abs().max() for a, b in zip(expected, found, strict=True))


def test_a_window_is_the_mean_of_the_words_that_are_there():
    model = model_of()
    vectors = model.input.weight

    h_BD = model(WINDOW["window"], WINDOW["present"])

    assert torch.allclose(torch.stack([(vectors[0] + vectors[1]) / 2, vectors[2]]), h_BD)


def test_negative_sampling_is_the_formula_of_the_paper():
    model = model_of()
    h_BD = model(WINDOW["window"], WINDOW["present"])

    def log_sigmoid(sign, example, word):
        return -math.log1p(math.exp(-sign * (h_BD[example] @ model.output.weight[word]).item()))

    expected = log_sigmoid(1, 0, 3) + sum(log_sigmoid(-1, 0, word) for word in (2, 2, 0))
    expected += log_sigmoid(1, 1, 1) + sum(log_sigmoid(-1, 1, word) for word in (0, 3))
    assert -expected == pytest.approx(negative_sampling_loss(model, BATCHES[negative_sampling_loss]).item())


def test_the_softmax_is_the_negative_log_of_a_probability():
    model = model_of()
    scores_BV = model(WINDOW["window"], WINDOW["present"]) @ model.output.weight.T
    p_BV = scores_BV.exp() / scores_BV.exp().sum(dim=1, keepdim=True)

    expected = -math.log(p_BV[0, 3].item()) - math.log(p_BV[1, 1].item())
    assert expected == pytest.approx(full_softmax_loss(model, BATCHES[full_softmax_loss]).item())


def test_the_hierarchical_loss_of_all_words_is_that_of_probabilities_that_sum_to_one():
    model = model_of(outputs=3)
    path, code = tensor([[0, 1, 0], [0, 1, 0], [0, 2, 0], [0, 2, 0]]), tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    total = 0.0
    for word in range(4):
        batch = {
            "window": tensor([[1]]),
            "present": tensor([[1.0]]).double(),
            "path": path[word : word + 1, :2],
            "code": code[word : word + 1].double(),
            "on_path": torch.ones(1, 2).double(),
        }
        total += math.exp(-hierarchical_loss(model, batch).item())

    assert 1 == pytest.approx(total)


def test_vectors_start_as_in_the_authors_program():
    model = Word2Vec(100, 100, 10, torch.Generator().manual_seed(1))

    assert 0 == model.output.weight.abs().max()
    assert 0.045 < model.input.weight.abs().max() <= 0.05
    assert torch.equal(model.input.weight, Word2Vec(100, 100, 10, torch.Generator().manual_seed(1)).input.weight)
