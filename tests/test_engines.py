"""Three engines train the same model: the loss curves coincide, whichever computes the gradient."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from chainrule.engines import chain_rule_engine, numerical_engine
from chainrule.models.transformer import Transformer
from chainrule.train.engine import autograd
from small_models import BatchNormCNN, class_loss, next_token_loss

STEPS = 20


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        first = torch.randint(0, 11, (2, 1), generator=generator)
        tokens = (first + 3 * torch.arange(7)) % 11  # something to learn: the next token is the last one plus 3
        yield tokens[:, :-1], tokens[:, 1:].contiguous()


def curve(engine) -> list[float]:
    """Losses of 20 steps of AdamW in float64 on the same batches from the same weights."""
    generator = torch.Generator().manual_seed(0)
    model = Transformer(vocabulary=11, layers=1, heads=2, hidden=8, context=6, generator=generator).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in batches():
        optimizer.zero_grad()
        losses.append(float(engine(model, next_token_loss, batch)))
        optimizer.step()
    return losses


@pytest.fixture(scope="module")
def by_autograd():
    return curve(autograd)


def test_the_chain_rule_follows_autograd_to_1e_12(by_autograd):
    assert by_autograd == pytest.approx(curve(chain_rule_engine()), rel=1e-12)


def test_finite_differences_follow_autograd_to_1e_9(by_autograd):
    assert by_autograd == pytest.approx(curve(numerical_engine()), rel=1e-9)


def test_the_curve_moves_so_that_the_agreement_says_something(by_autograd):
    assert by_autograd[-1] < by_autograd[0] - 0.3


def test_gradients_add_up_over_calls_as_those_of_backward_do():
    model = Transformer(vocabulary=11, layers=1, heads=2, hidden=8, context=6).double()
    batch = next(batches())
    engine = chain_rule_engine()

    engine(model, next_token_loss, batch)
    once = [parameter.grad.clone() for parameter in model.parameters()]
    engine(model, next_token_loss, batch)

    for single, parameter in zip(once, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * single)


def test_dropout_is_drawn_anew_at_each_step_and_as_autograd_would():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.Dropout(0.5), nn.Linear(9, 3)).double()
    batch = (torch.randn(4, 5).double(), torch.tensor([0, 1, 2, 0]))
    engine = chain_rule_engine()
    torch.manual_seed(7)
    expected = [float(autograd(model, class_loss, batch)) for _ in range(4)]
    torch.manual_seed(7)

    assert expected == pytest.approx([float(engine(model, class_loss, batch)) for _ in range(4)], rel=1e-12)
    assert len(set(expected)) == 4


def test_batch_norms_running_statistics_move_as_in_forward():
    ours, theirs = BatchNormCNN(), BatchNormCNN()
    theirs.load_state_dict(ours.state_dict())
    batch = (torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 3]))

    chain_rule_engine()(ours, class_loss, batch)
    class_loss(theirs, batch)

    for (name, expected), actual in zip(theirs.named_buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(actual, expected, msg=name)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # of torch.compile's own imports
def test_a_compiled_model_gets_its_gradients_under_its_own_names():
    model = nn.Linear(5, 3).double()
    batch = (torch.randn(4, 5).double(), torch.tensor([0, 1, 2, 0]))

    chain_rule_engine()(torch.compile(model), class_loss, batch)
    ours = model.weight.grad.clone()
    model.zero_grad()
    autograd(model, class_loss, batch)

    torch.testing.assert_close(ours, model.weight.grad)


def squared(model, batch):
    return model(batch).square().mean()


def test_an_engine_forgets_a_model_that_is_gone():
    engine = chain_rule_engine()

    def difference():  # a new model often gets the id of the one before
        model, batch = nn.Linear(3, 1), torch.randn(4, 3)
        return float(engine(model, squared, batch)) - squared(model, batch).item()

    assert [0.0] * 5 == pytest.approx([difference() for _ in range(5)], abs=1e-6)
    gc.collect()  # torch.export leaves cycles that hold the model
    assert 0 == len(engine._graphs)
