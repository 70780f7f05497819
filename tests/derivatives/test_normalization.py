"""Every rule of normalisation stands the checks that every rule must stand."""

import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import normalization
from chainrule.derivatives.rule import merge
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
RULES, _ = merge([normalization.rules])


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator) * scale + shift


def own_samples() -> list[Sample]:
    x, w, b = normal(4, 6, 5, shift=3.0), normal(6), normal(6)
    mean, var = normal(6), normal(6).abs() + 0.5
    stored = (x, w, b, mean, var)
    return [
        call(aten.layer_norm.default, x, (6, 5), normal(6, 5), None),
        call(aten.layer_norm.default, normal(3, 1), (1,), normal(1), normal(1)),
        call(aten.native_layer_norm.default, x, (5,), normal(5), normal(5), 1e-5),
        call(aten.instance_norm.default, x, w, b, None, None, True, 0.1, 1e-5, False),
        call(aten.instance_norm.default, *stored, False, 0.1, 1e-5, False),
        call(aten.batch_norm.default, *stored, False, 0.1, 1e-5, False),
        call(aten.batch_norm.default, x, None, None, None, None, True, 0.1, 1e-5, False),
        call(aten.native_batch_norm.default, *stored, True, 0.1, 1e-5),
        call(aten._native_batch_norm_legit.default, *stored, True, 0.1, 1e-5),
        call(aten._native_batch_norm_legit.no_stats, x, w, b, True, 0.1, 1e-5),
        call(aten._native_batch_norm_legit_functional.default, *stored, True, 0.1, 1e-5),
        call(aten._native_batch_norm_legit_functional.default, x[:, :, 0], *stored[1:], True, 0.1, 1e-5),
        call(aten._native_batch_norm_legit_functional.default, *stored, False, 0.1, 1e-5),
        call(aten._native_batch_norm_legit_no_training.default, *stored, 0.1, 1e-5),
    ]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples_of(op, own_samples()))
