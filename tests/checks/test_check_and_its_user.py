"""What a user of `check` relies on: nothing of theirs changes, bad input has words, what is declared is respected."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.errors import ConfigError, SetupError


class Rounded(torch.autograd.Function):
    """Straight-through: rounds in forward, passes the gradient in backward."""

    @staticmethod
    def forward(ctx, x):
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx, g):
        return g


class Quantize(nn.Module):
    def forward(self, x):
        return Rounded.apply(x)


class Net(nn.Module):
    def __init__(self, middle: nn.Module):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, 5), middle, nn.Linear(5, 2)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        hidden = self.middle(self.first(x))
        self.seen.append(hidden)
        return self.last(hidden)


def loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def batch():
    return torch.randn(4, 3), torch.tensor([0, 1, 1, 0])


def test_nothing_of_the_users_changes():
    model = Net(nn.Dropout(0.3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loss(model, batch()).backward()
    optimizer.step()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    given, kept = batch(), list(model.seen)
    streams = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())

    cr.check(cr.Setup(model, loss, [given], optimizer))

    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights.items())
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))
    assert all(
        torch.equal(old, new)
        for old, new in zip(moments, (v for s in optimizer.state.values() for v in s.values()), strict=True)
    )
    assert [id(tensor) for tensor in kept] == [id(tensor) for tensor in model.seen]
    assert torch.equal(streams[0], torch.get_rng_state())
    assert (streams[1] == np.random.get_state()[1]).all()
    assert streams[2] == random.getstate()


def test_a_backward_that_is_meant_to_differ_fails_unless_it_is_declared():
    setup = {"model": Net(Quantize()), "loss": loss, "batches": [batch()]}

    undeclared = cr.check(cr.Setup(**setup))
    declared = cr.check(cr.Setup(**setup, surrogate=["middle"]))

    assert ("fail", "middle.Rounded") == (undeclared.verdict, undeclared.findings[0].where)
    assert "where the derivative is zero" in undeclared.findings[0].message
    assert "pass" == declared.verdict, str(declared)


def test_a_hook_that_changes_a_gradient_is_seen():
    class Hooked(nn.Module):
        def forward(self, x):
            y = torch.tanh(x)
            y.register_hook(lambda g: 1.5 * g)
            return y

    report = cr.check(cr.Setup(Net(Hooked()), loss, [batch()]))

    assert "fail" == report.verdict
    assert "1.5 times the chain rule's" in report.findings[0].message


def test_the_same_seed_makes_the_same_report_and_another_seed_other_directions():
    setup = cr.Setup(Net(nn.Tanh()), loss, [batch()])

    first, again, other = (
        {stage.name: stage.resolution for stage in cr.check(setup, seed=seed).stages} for seed in (3, 3, 4)
    )

    assert first == again
    assert first["4 directions"] != other["4 directions"]


def test_only_runs_what_was_asked_for_and_an_unknown_name_is_refused():
    setup = cr.Setup(Net(nn.Tanh()), loss, [batch()])

    assert ["2 each formula"] == [stage.name for stage in cr.check(setup, only=["rule-mismatch"]).stages]
    with pytest.raises(ConfigError, match=r"^unknown check 'rule-mismach'; did you mean rule-mismatch\?$"):
        cr.check(setup, only=["rule-mismach"])


def test_what_is_taken_from_a_generator_is_given_again():
    given = [batch(), batch()]
    setup = cr.Setup(Net(nn.Tanh()), loss, iter(given))

    assert "pass" == cr.check(setup).verdict
    assert "pass" == cr.check(setup).verdict
    assert [id(b) for b in given] == [id(b) for b in setup.batches]


def test_nan_in_the_batch_is_named():
    x, y = batch()
    x[2, 1] = float("nan")

    with pytest.raises(SetupError, match=r"batch \[0\] \(4, 3\) holds 1 inf or nan"):
        cr.check(cr.Setup(Net(nn.Tanh()), loss, [(x, y)]))


def test_nan_made_inside_the_model_is_named_by_its_line():
    class Log(nn.Module):
        def forward(self, x):
            return torch.log(x - x)

    with pytest.raises(
        SetupError, match=r"inf or nan first appears in middle\.log|first appears in .*return self.last"
    ):
        cr.check(cr.Setup(Net(Log()), lambda m, b: loss(m, b) * float("nan"), [batch()]))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), r"scalar"),
        (lambda m, b: float(loss(m, b)), r"float|tensor"),
        (lambda m, b: loss(m, b).detach(), r"no trainable parameter|depends on no"),
    ],
)
def test_a_loss_that_cannot_be_used_is_refused_in_words(wrong, words):
    with pytest.raises(SetupError, match=words):
        cr.check(cr.Setup(Net(nn.Tanh()), wrong, [batch()]))


def test_no_batch_at_all_is_refused():
    with pytest.raises(SetupError, match="gives no batch at all"):
        cr.check(cr.Setup(Net(nn.Tanh()), loss, []))


def test_what_is_no_setup_is_refused():
    with pytest.raises(SetupError, match=r"takes a chainrule\.Setup, got Net"):
        cr.check(Net(nn.Tanh()))
