"""The checks of the rules are themselves checked: each must refuse a rule that is wrong in its way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from chainrule.derivatives.rule import Rule, Rules, merge
from derivatives import rule_checks as checks
from derivatives.rule_samples import samples_of

aten = torch.ops.aten


def rule_of(op: Any, function: Callable[..., Any], **declared: Any) -> Rule:
    rules = Rules()
    rules.vjp(op, **declared)(function)
    return merge([rules])[0][op]


def assert_refused(check: checks.Check, rule: Rule, match: str) -> None:
    with pytest.raises(AssertionError, match=match):
        check(rule, samples_of(rule.op))


def test_a_rule_that_calls_a_backward_op_is_refused() -> None:
    def tanh(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = tanh self"""
        return {"self": aten.tanh_backward(g, y)}

    assert_refused(
        checks.agrees_with_autograd_on_every_sample, rule_of(aten.tanh.default, tanh), "runs aten.tanh_backward"
    )


def test_a_rule_that_calls_autograd_is_refused() -> None:
    def tanh(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = tanh self"""
        with torch.enable_grad():
            x = self.detach().requires_grad_()
            return {"self": torch.autograd.grad(x.tanh(), x, g)[0]}

    assert_refused(checks.agrees_with_autograd_on_every_sample, rule_of(aten.tanh.default, tanh), "autograd")


def test_a_rule_that_forgets_an_argument_is_refused() -> None:
    def mm(g: Tensor, y: Tensor, self: Tensor, mat2: Tensor) -> Any:
        """y = self @ mat2"""
        return {"self": g @ mat2.mT}

    assert_refused(checks.is_linear_in_g, rule_of(aten.mm.default, mm), r"expected gradients of \['mat2', 'self'\]")


def test_a_transposed_gradient_is_refused() -> None:
    def mm(g: Tensor, y: Tensor, self: Tensor, mat2: Tensor) -> Any:
        """y = self @ mat2"""
        return {"self": g @ mat2.mT, "mat2": g.mT @ self}

    assert_refused(checks.agrees_with_central_differences, rule_of(aten.mm.default, mm), "has shape|differs from")


def test_a_rule_that_is_not_linear_in_g_is_refused() -> None:
    def neg(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = -self"""
        return {"self": -g * g.abs()}

    assert_refused(checks.is_linear_in_g, rule_of(aten.neg.default, neg), "not linear in g")


def test_a_jvp_that_is_not_the_transpose_of_the_vjp_is_refused() -> None:
    def mm(g: Tensor, y: Tensor, self: Tensor, mat2: Tensor) -> Any:
        """y = self @ mat2"""
        return {"self": g @ mat2.mT, "mat2": self.mT @ g}

    def jvp(y: Tensor, t: Any, self: Tensor, mat2: Tensor) -> Tensor:
        return t["self"] @ mat2

    rule = rule_of(aten.mm.default, mm, jvp=jvp)
    assert_refused(checks.is_the_adjoint_of_its_tangent, rule, r"<g, J u> - <Jᵀ g, u>")


def test_a_frozen_form_that_is_not_the_op_is_refused() -> None:
    def relu(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = max(self, 0)"""
        return {"self": g * (self > 0)}

    rule = rule_of(aten.relu.default, relu, frozen=lambda at, self: self)
    assert_refused(checks.says_where_it_holds, rule, "frozen at the base point is not the op")


def test_an_absolute_bound_that_subtracts_is_refused() -> None:
    def relu(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = max(self, 0)"""
        return {"self": g * (self > 0)}

    rule = rule_of(aten.relu.default, relu, abs_bound=lambda g, y, self: {"self": g.abs() * (self > 1)})
    assert_refused(checks.is_bounded_by_its_absolute_bound, rule, "exceeds abs_bound")


def test_a_rule_without_samples_is_refused() -> None:
    def neg(g: Tensor, y: Tensor, self: Tensor) -> Any:
        """y = -self"""
        return {"self": -g}

    with pytest.raises(AssertionError, match="none of 0 samples"):
        checks.agrees_with_autograd_on_every_sample(rule_of(aten.neg.default, neg), [])
