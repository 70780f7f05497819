"""Every rule of dropout stands the checks that every rule must stand; a mask that is drawn inside is refused."""

import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import dropout
from chainrule.derivatives.rule import merge
from chainrule.errors import MissingRuleError
from chainrule.graph import bind_arguments
from derivatives.rule_checks import Check, agrees_with_central_differences, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([dropout.rules])
X = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def samples(op: OpOverload) -> list[Sample]:
    if op is aten.native_dropout.default:
        return [call(op, X, p, train) for p, train in [(0.3, True), (0.3, False), (0.0, True), (1.0, True)]]
    own = [call(op, X, 0.3, False), call(op, X, 0.0, True)]
    return [sample for sample in samples_of(op, own) if not sample.arguments["train"] or sample.arguments["p"] == 0]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples(op))


def test_train_none_counts_as_training_as_forward_has_it_though_autograd_forgets_the_scale() -> None:
    sample = call(aten.native_dropout.default, X, 0.3, None)
    agrees_with_central_differences(RULES[sample.op], [sample])


def test_a_mask_that_is_drawn_inside_the_op_is_refused_with_the_way_out() -> None:
    arguments = bind_arguments(aten.dropout.default, (X, 0.5, True), {})
    with pytest.raises(MissingRuleError, match=r"p = 0\.5 in training draws its mask inside.*Capture the graph"):
        RULES[aten.dropout.default].gradients(X, X, arguments)
