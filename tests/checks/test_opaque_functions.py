"""A custom Function whose forward cannot be seen: nothing is claimed of its backward, and nothing false of the rest."""

import numpy as np
import torch
from torch import Tensor, nn

import chainrule as cr


class NumPyTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.tanh(x.detach().numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (1 - y * y)


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        return g / 2


def setup(last) -> cr.Setup:
    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return last(model[1](NumPyTanh.apply(model[0](x)))).pow(2).mean()

    torch.manual_seed(0)
    return cr.Setup(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), loss, [torch.randn(5, 4)])


def test_the_verdict_is_unresolved_and_names_the_function_and_its_line():
    report = cr.check(setup(lambda y: y))
    assert report.ok
    assert "unresolved" == report.to_dict()["verdict"]
    (finding,) = report.findings
    assert "NumPyTanh" == finding.where
    assert "the backward of NumPyTanh is not checked: its forward cannot be seen" == finding.message
    assert "NumPyTanh.apply(" in finding.source.code


def test_a_wrong_backward_beside_it_still_fails_and_is_named():
    report = cr.check(setup(Halved.apply))
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert not report.ok
    assert errors
    assert all("Halved" in finding.where for finding in errors)
