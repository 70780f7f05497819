"""The fixture `chainrule` in a user's own suite: a good set-up passes, a wrong one fails with the report."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import torch
from torch import nn
from chainrule import Setup

class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        return g * {factor}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)
    def forward(self, x):
        return self.last(Half.apply(self.first(x)))

def test_my_gradients(chainrule):
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    chainrule.check(Setup(Net(), lambda model, batch: model(batch).square().mean(), [x]))
"""


@pytest.mark.parametrize(("factor", "outcome"), [("1.0", "passed"), ("0.5", "failed")])
def test_a_users_own_suite(pytester, factor, outcome):
    pytester.makepyfile(SUITE.format(factor=factor))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines(["*error[[]gradient-mismatch]*Half: your gradient is half the chain rule's*"])
