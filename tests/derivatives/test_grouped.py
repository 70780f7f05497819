"""The grouped product's rule. torch runs this op in no precision above float32, so the harness of float64 samples cannot."""

import pytest
import torch

from chainrule.derivatives import RULES, grouped
from chainrule.errors import MissingRuleError
from chainrule.graph import bind_arguments
from derivatives.rule_samples import normal

aten = torch.ops.aten
OP = aten._grouped_mm.default
OFFS = torch.tensor([2, 2, 5, 7], dtype=torch.int32)  # the second group is empty, the eighth row in none
X, W, G = normal(8, 4), normal(4, 4, 8, seed=1), normal(8, 8, seed=2)


def rows_times_their_matrix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    parts = [x[rows] @ w[e] for e, rows in enumerate(grouped.groups(OFFS))]
    return torch.cat([*parts, torch.zeros(x.shape[0] - 7, 8, dtype=x.dtype)])


def by_rule(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor) -> dict[str, torch.Tensor]:
    y = rows_times_their_matrix(x, w)
    return dict(RULES[OP].gradients(g, y, bind_arguments(OP, (x, w, OFFS), {})))


def test_the_rule_is_the_derivative_of_the_formula_in_float64():
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    expected = torch.autograd.grad(rows_times_their_matrix(x, w), (x, w), G)
    found = by_rule(X, W, G)
    torch.testing.assert_close(expected[0], found["self"], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(expected[1], found["mat2"], rtol=1e-13, atol=1e-13)


def test_the_rule_agrees_with_torchs_own_derivative_of_the_op_in_float32():
    x, w = X[:7].float().requires_grad_(), W.float().requires_grad_()
    y = OP(x, w, OFFS)
    torch.testing.assert_close(rows_times_their_matrix(X, W)[:7].float(), y.detach(), rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(y, (x, w), G[:7].float())
    found = RULES[OP].gradients(G[:7].float(), y.detach(), bind_arguments(OP, (x.detach(), w.detach(), OFFS), {}))
    torch.testing.assert_close(expected[0], found["self"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected[1], found["mat2"], rtol=1e-5, atol=1e-5)


def test_jacobian_and_its_transpose_are_adjoint():
    tangent_x, tangent_w = normal(8, 4, seed=3), normal(4, 4, 8, seed=4)
    pushed = rows_times_their_matrix(tangent_x, W) + rows_times_their_matrix(X, tangent_w)
    pulled = by_rule(X, W, G)
    back = (pulled["self"] * tangent_x).sum() + (pulled["mat2"] * tangent_w).sum()
    torch.testing.assert_close((G * pushed).sum(), back, rtol=1e-13, atol=1e-13)


def test_other_shapes_are_refused_with_what_there_is():
    arguments = bind_arguments(OP, (W, W.mT, None), {})
    with pytest.raises(MissingRuleError, match=r"rows in groups, each with a matrix of its own"):
        RULES[OP].gradients(G, G, arguments)
