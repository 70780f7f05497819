"""What a finding says of an error's size: the right gradient is the denominator, for the value as for the parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import chainrule as cr


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g / 2


class Halved(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return Half.apply(self.body(x))


def finding(body: nn.Module) -> cr.Finding:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().mean()

    return cr.check(cr.Setup(Halved(body), loss, [torch.randn(6, 3)]), only=("gradient-mismatch",)).findings[0]


def test_a_backward_that_is_half_is_half_wrong_for_the_value_and_for_each_parameter():
    torch.manual_seed(0)
    found = finding(nn.Linear(3, 2))
    assert abs(found.evidence["relative_error"] - 0.5) < 1e-9
    assert all(abs(share - 0.5) < 1e-9 for share in found.evidence["affected_parameters"].values())
    assert "the difference is 5.0e-01 of the right gradient's norm" in found.notes[0]
    assert (
        "It spoils the gradients of body.weight (5.0e-01), body.bias (5.0e-01); in brackets the error's share of the norm "
        "that each has without it." == found.notes[-1]
    )


def test_a_gradient_that_is_an_error_and_nothing_else_is_called_so():
    class OffByOne(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x - x.mean(0)

        @staticmethod
        def backward(ctx, g):
            return g + 1.0  # the right one sums to zero, so that the bias before it has no gradient

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return OffByOne.apply(self.linear(x))

    torch.manual_seed(0)
    setup = cr.Setup(Centred(), lambda model, x: model(x).pow(4).mean(), [torch.randn(6, 3)])
    note = cr.check(setup, only=("gradient-mismatch",)).findings[0].notes[-1]
    assert note.startswith("It spoils the gradients of linear.bias (all), linear.weight (")
