"""Every rule of attention stands the checks that every rule must stand, and PyTorch's conventions hold."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives import attention
from chainrule.derivatives.rule import merge
from chainrule.errors import MissingRuleError
from chainrule.graph import bind_arguments
from derivatives.rule_checks import Check, every_case
from derivatives.rule_samples import Sample, call, samples_of

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
FLASH = aten._scaled_dot_product_flash_attention_for_cpu.default
RULES, _ = merge([attention.rules])


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def some_hidden(*shape: int) -> Tensor:
    """Half of the keys, and all those of query 1."""
    mask = normal(*shape) > 0
    mask[..., 1, :] = False
    return mask


def own_samples() -> list[Sample]:
    q, k, v = normal(2, 4, 5, 3), normal(2, 4, 7, 3), normal(2, 4, 7, 6)
    few_k, few_v = k[:, :2], v[:, :2]
    minus_infinity = torch.zeros(4, 5, 7, dtype=torch.float64).masked_fill(some_hidden(4, 5, 7), -math.inf)
    long = [normal(1, 2, 300, 4), normal(1, 2, 300, 4) + 0.1, normal(1, 2, 300, 4) - 0.1]
    return [
        call(ATTENTION, q, k, v),
        call(ATTENTION, q, k, v, some_hidden(5, 7)),
        call(ATTENTION, q, k, v, some_hidden(2, 1, 5, 7), scale=0.3),
        call(ATTENTION, q, k, v, normal(4, 5, 7)),
        call(ATTENTION, q, k, v, minus_infinity),
        call(ATTENTION, q, k, v, is_causal=True, scale=1.5),
        call(ATTENTION, q, k[:, :, :3], v[:, :, :3], is_causal=True),
        call(ATTENTION, q, few_k, few_v, enable_gqa=True),
        call(ATTENTION, q, few_k, few_v, normal(5, 7), enable_gqa=True),
        call(ATTENTION, *long, is_causal=True),
        call(ATTENTION, q[:, :, :1], k[:, :, :1], v[:, :, :1], is_causal=True),
        call(ATTENTION, q[:0], k[:0], v[:0]),
        call(FLASH, *long, is_causal=True),
        call(FLASH, q, k, v[..., :3]),
        call(FLASH, q, k, v[..., :3], attn_mask=normal(5, 7)),
    ]


def samples(op: OpOverload) -> list[Sample]:
    return [sample for sample in samples_of(op, own_samples()) if sample.arguments["dropout_p"] == 0]


@pytest.mark.parametrize(("op", "check"), every_case(RULES))
def test_the_rule(op: OpOverload, check: Check) -> None:
    check(RULES[op], samples(op))


def test_dropout_inside_the_op_is_refused_with_the_way_out() -> None:
    q = normal(1, 1, 3, 2)
    arguments = bind_arguments(ATTENTION, (q, q, q), {"dropout_p": 0.1})
    with pytest.raises(MissingRuleError, match=r"dropout_p = 0.1: the mask is drawn inside the op.*Set the attention"):
        RULES[ATTENTION].gradients(q, q, arguments)


def test_a_query_that_sees_no_key_gets_and_gives_no_gradient() -> None:
    q, k, v = normal(1, 1, 5, 3), normal(1, 1, 7, 3), normal(1, 1, 7, 3)
    arguments = bind_arguments(ATTENTION, (q, k, v, some_hidden(5, 7)), {})
    g = torch.zeros_like(q)
    g[..., 1, :] = 1.0
    y = F.scaled_dot_product_attention(q, k, v, arguments["attn_mask"])
    for gradient in RULES[ATTENTION].gradients(g, y, arguments).values():
        assert torch.count_nonzero(gradient) == 0
