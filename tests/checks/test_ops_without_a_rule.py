"""An op without a rule is written out in smaller ops; if it cannot be, its gradient is numerical and never part of a PASS."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.autodiff import value_and_grad
from chainrule.autodiff.reverse import without_rule
from chainrule.capture import capture, promote
from chainrule.capture.expand import expand
from chainrule.compare.by_autograd import autograd_value_and_grad
from chainrule.derivatives import FLAT, RULES
from chainrule.errors import MissingRuleError

aten = torch.ops.aten


@torch.library.custom_op("chainrule_tests::cubed", mutates_args=())
def cubed(x: torch.Tensor) -> torch.Tensor:
    return x**3


@cubed.register_fake
def _(x):
    return torch.empty_like(x)


def _backward(ctx, g):
    (x,) = ctx.saved_tensors
    return g * 3 * x**2


def _save(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


cubed.register_autograd(_backward, setup_context=_save)


class Cubic(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.inner, self.outer = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x):
        return self.outer(cubed(self.inner(x)))


def loss(model, x):
    return F.mse_loss(model(x), torch.ones(5, 2, dtype=x.dtype))


def test_a_known_composite_can_be_written_out_and_gives_the_same_gradient():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    graph = promote(capture(model, loss, torch.randn(5, 3)))
    known = (RULES.keys() | FLAT) - {aten.layer_norm.default}

    expanded = expand(graph, known)

    assert aten.layer_norm.default not in {node.op for node in expanded.nodes}
    whole, parts = value_and_grad(graph)[1], value_and_grad(expanded)[1]
    for path, gradient in whole.items():
        torch.testing.assert_close(parts[path], gradient, rtol=1e-10, atol=1e-14)
    assert all(node.source and node.module for node in expanded.nodes if node.name.startswith("layer_norm"))


def test_an_op_of_an_extension_is_differentiated_numerically_and_the_verdict_is_unresolved():
    model = Cubic()

    report = cr.check(cr.Setup(model, loss, [torch.randn(5, 3)]))

    assert "unresolved" == report.verdict, str(report)
    assert ["no-rule"] == [finding.check for finding in report.findings]
    assert "chainrule_tests.cubed" in report.findings[0].message


def test_the_numerical_gradient_of_such_an_op_is_right():
    graph = promote(cr.capture(Cubic(), loss, torch.randn(5, 3)))

    (node,) = without_rule(graph)
    gradients = value_and_grad(graph)[1]

    assert "chainrule_tests::cubed" == node.op.name().split(".")[0]
    for path, expected in autograd_value_and_grad(graph)[1].items():
        torch.testing.assert_close(gradients[path], expected, rtol=1e-9, atol=1e-12)


def test_an_op_without_a_rule_that_is_too_large_for_differences_is_refused_by_name():
    graph = promote(cr.capture(Cubic(width=2000), loss, torch.randn(5, 3)))

    with pytest.raises(MissingRuleError, match=r"chainrule_tests.cubed.*10000|cubed.*\(5, 2000\)"):
        value_and_grad(graph)
