import pytest
import torch

from chainrule.derivatives import RULES
from chainrule.derivatives.tangents import has_tangent, tangent
from chainrule.graph import bind_arguments
from derivatives.rule_samples import normal

aten = torch.ops.aten
BIAS, A, B = normal(3, 2), normal(3, 4, seed=1), normal(4, 2, seed=2)


def tangent_of_addmm(t: dict[str, torch.Tensor]) -> torch.Tensor:
    arguments = bind_arguments(aten.addmm.default, (BIAS, A, B), {"alpha": 0.5})
    return tangent(RULES[aten.addmm.default], aten.addmm.default(**arguments), t, arguments)


def test_a_product_moves_by_one_term_per_argument_that_moves() -> None:
    da, db = normal(3, 4, seed=3), normal(4, 2, seed=4)
    torch.testing.assert_close(0.5 * (da @ B + A @ db), tangent_of_addmm({"mat1": da, "mat2": db}))


def test_what_is_added_to_a_product_does_not_move_with_its_factors() -> None:
    da = normal(3, 4, seed=3)
    torch.testing.assert_close(0.5 * da @ B, tangent_of_addmm({"mat1": da}))


def test_a_list_argument_moves_by_all_its_tensors() -> None:
    arguments = bind_arguments(aten.cat.default, ((A, B.T),), {})
    directions = (normal(3, 4, seed=5), torch.zeros(2, 4, dtype=A.dtype))
    y = aten.cat.default(**arguments)
    moved = tangent(RULES[aten.cat.default], y, {"tensors": directions}, arguments)
    torch.testing.assert_close(torch.cat(directions), moved)


def test_every_output_of_an_op_has_its_tangent() -> None:
    arguments = bind_arguments(aten.split.Tensor, (A, 3, 1), {})
    direction = normal(3, 4, seed=6)
    y = tuple(aten.split.Tensor(**arguments))
    moved = tangent(RULES[aten.split.Tensor], y, {"self": direction}, arguments)
    torch.testing.assert_close(direction.split(3, 1), moved)


def test_an_op_without_jvp_that_is_not_linear_says_so() -> None:
    rule = RULES[aten.lstm_cell.default]
    assert not has_tangent(rule, frozenset({"input"}))
    with pytest.raises(
        LookupError, match=r"aten.lstm_cell.default: no jvp, and linear in \[\] only; tangents came for"
    ):
        tangent(rule, None, {"input": A}, {})
