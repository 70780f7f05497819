import pytest
import torch
from torch._ops import OpOverload

from chainrule.derivatives import FLAT, RULES
from chainrule.derivatives.rule import Rule
from derivatives.rule_runs import floats, tensors
from derivatives.rule_samples import call, normal, samples_of

aten = torch.ops.aten
STEPS = (aten.sign, aten.sgn, aten.floor, aten.ceil, aten.round, aten.trunc, aten.fix)
UNKNOWN_TO_AUTOGRAD = (aten.floor_divide, aten.heaviside, aten.randint_like, aten.unique_consecutive)
DECLARED = Rule(op=aten.sign.default, formula="", vjp=lambda g, y: {})  # no rule of an op: all its arguments count


OF_TENSORS = [op for op in FLAT - {aten.detach.default} if any("Tensor" in str(a.type) for a in op._schema.arguments)]


@pytest.mark.parametrize("op", sorted(OF_TENSORS, key=str), ids=str)
def test_a_flat_op_has_no_derivative_in_autograd_either(op: OpOverload) -> None:
    own = [call(op, normal(3, 4))] if op in {step.default for step in STEPS} else []
    for sample in samples_of(op, own):
        leaves = {
            name: value.detach().clone().requires_grad_() if isinstance(value, torch.Tensor) else value
            for name, value in floats(DECLARED, sample).items()
        }
        outputs = [out for out in tensors(op(**{**sample.arguments, **leaves})) if out.requires_grad]
        if outputs and (inputs := tensors(leaves)):
            if op.overloadpacket in UNKNOWN_TO_AUTOGRAD:
                with pytest.raises(RuntimeError, match="not implemented"):
                    torch.autograd.grad([out.sum() for out in outputs], inputs)
                return
            found = torch.autograd.grad([out.sum() for out in outputs], inputs, allow_unused=True)
            assert all(gradient is None or not gradient.any() for gradient in found), str(sample)


def test_detach_is_declared_flat_so_that_no_gradient_passes() -> None:
    assert aten.detach.default in FLAT


def test_no_op_is_both_flat_and_has_a_rule() -> None:
    assert not FLAT & RULES.keys()


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_every_step_has_samples(step: OpOverload) -> None:
    assert samples_of(step.default, [call(step.default, normal(3))])


def test_a_division_that_rounds_is_not_flat_when_it_does_not_round() -> None:
    assert aten.div.Tensor_mode not in FLAT
