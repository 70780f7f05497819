"""Each op that the complex step passes: equal to torch's for real arguments, and with the right imaginary part."""

import pytest
import torch

from chainrule.compare.complex_forms import COMPLEX_FORMS, HOLOMORPHIC, PIECEWISE, as_complex, complex_form, erf
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.graph import Node, Spec, bind_arguments

aten = torch.ops.aten
H = 2.0**-100


def r(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def p(*shape):
    return r(*shape).abs() + 0.3


CLASSES = torch.tensor([1, 0, 3, -100, 2])
# op -> arguments, the first tensor of which moves
SAMPLES = {
    aten.linear.default: (r(4, 3), r(5, 3, seed=1), r(5)),
    aten.mm.default: (r(4, 3), r(3, 5, seed=1)),
    aten.bmm.default: (r(2, 4, 3), r(2, 3, 5, seed=1)),
    aten.matmul.default: (r(2, 4, 3), r(3, 5, seed=1)),
    aten.addmm.default: (r(5), r(4, 3), r(3, 5, seed=1)),
    aten.add.Tensor: (r(4), r(4, seed=1)),
    aten.add.Scalar: (r(4), 2.0),
    aten.sub.Tensor: (r(4), r(4, seed=1)),
    aten.sub.Scalar: (r(4), 2.0),
    aten.rsub.Scalar: (r(4), 2.0),
    aten.mul.Tensor: (r(4), r(4, seed=1)),
    aten.mul.Scalar: (r(4), 2.0),
    aten.div.Tensor: (r(4), p(4)),
    aten.div.Scalar: (r(4), 2.0),
    aten.pow.Tensor_Scalar: (r(4), 3),
    aten.reciprocal.default: (p(4),),
    aten.log.default: (p(4),),
    aten.log1p.default: (p(4),),
    aten.sqrt.default: (p(4),),
    aten.rsqrt.default: (p(4),),
    aten.sum.dim_IntList: (r(3, 4), [1]),
    aten.mean.dim: (r(3, 4), [1]),
    aten.cumsum.default: (r(3, 4), 1),
    aten.logsumexp.default: (r(3, 4), [1]),
    aten.transpose.int: (r(3, 4), 0, 1),
    aten.permute.default: (r(3, 4), [1, 0]),
    aten.t.default: (r(3, 4),),
    aten.reshape.default: (r(3, 4), [12]),
    aten.view.default: (r(3, 4), [12]),
    aten._unsafe_view.default: (r(3, 4), [12]),
    aten.flatten.using_ints: (r(3, 4), 0, 1),
    aten.unsqueeze.default: (r(3, 4), 1),
    aten.squeeze.dim: (r(3, 1), 1),
    aten.squeeze.dims: (r(3, 1), [1]),
    aten.expand.default: (r(3, 1), [3, 4]),
    aten.broadcast_tensors.default: ([r(3, 1), r(1, 2)],),
    aten.slice.Tensor: (r(3, 4), 1, 1, 3),
    aten.select.int: (r(3, 4), 1, 2),
    aten.split.Tensor: (r(3, 4), 2, 1),
    aten.split_with_sizes.default: (r(3, 4), [1, 3], 1),
    aten.chunk.default: (r(3, 4), 2, 1),
    aten.cat.default: ([r(3), r(3, seed=1)],),
    aten.stack.default: ([r(3), r(3, seed=1)],),
    aten.index.Tensor: (r(3, 4), [torch.tensor([2, 0])]),
    aten.index_select.default: (r(3, 4), 0, torch.tensor([2, 0])),
    aten.gather.default: (r(3, 4), 1, torch.tensor([[2], [0], [1]])),
    aten.masked_fill.Scalar: (r(3), torch.tensor([True, False, True]), 5.0),
    aten.where.self: (torch.tensor([True, False, True]), r(3), r(3, seed=1)),
    aten.embedding.default: (r(5, 2), torch.tensor([1, 3, 1])),
    aten.conv1d.default: (r(2, 3, 7), r(4, 3, 3, seed=1), r(4)),
    aten.conv2d.default: (r(2, 3, 7, 7), r(4, 3, 3, 3, seed=1), r(4), [2, 2], [1, 1]),
    aten.softmax.int: (r(3, 4), -1),
    aten._softmax.default: (r(3, 4), -1, False),
    aten.log_softmax.int: (r(3, 4), -1),
    aten._log_softmax.default: (r(3, 4), -1, False),
    aten.layer_norm.default: (r(3, 4), [4], r(4), r(4, seed=1)),
    aten._native_batch_norm_legit_functional.default: (r(3, 4), r(4), r(4), r(4), p(4), True, 0.1, 1e-5),
    aten.gelu.default: (3 * r(20),),
    aten.erf.default: (4 * r(20),),
    aten.softplus.default: (r(20) * 20,),
    aten.var.correction: (r(3, 4), [1]),
    aten.cross_entropy_loss.default: (r(5, 4), CLASSES, p(4), 1, -100, 0.1),
    aten.nll_loss.default: (r(5, 4), CLASSES, p(4)),
    aten.mse_loss.default: (r(5), r(5, seed=1)),
    aten.scaled_dot_product_attention.default: (r(2, 2, 5, 4), r(2, 2, 5, 4, seed=1), r(2, 2, 5, 4), None, 0.0, True),
    aten.clamp.default: (r(9), -0.5, 0.5),
    aten.maximum.default: (r(9), r(9, seed=1)),
    aten.minimum.default: (r(9), r(9, seed=1)),
    aten.amax.default: (r(3, 4), [1]),
    aten.amin.default: (r(3, 4), [1]),
    aten.clamp_min.default: (r(9), 0.1),
    aten.clamp_max.default: (r(9), 0.1),
}
OPS = sorted({*COMPLEX_FORMS, *HOLOMORPHIC, *PIECEWISE}, key=str)


def moved(value, direction):
    """The first float tensor of the arguments moved by `direction`."""
    done = []

    def visit(item):
        if isinstance(item, (list, tuple)):
            return [visit(part) for part in item]
        if isinstance(item, torch.Tensor) and item.is_floating_point() and not done:
            done.append(item)
            return item + direction(item)
        return item

    return {name: visit(item) for name, item in value.items()}


def parts(output):
    return output if isinstance(output, (tuple, list)) else [output]


@pytest.mark.parametrize("op", OPS, ids=str)
def test_the_imaginary_part_is_the_derivative_and_the_real_part_the_value(op):
    arguments = bind_arguments(op, SAMPLES.get(op, (r(9),)), {})
    run = complex_form(Node("y", op, {}, Spec((), torch.float64)))
    if run is None:
        at = {**arguments, "y": op(**arguments)}

        def run(**rest):
            return call_by_name(RULES[op].frozen, rest, at)

    values = parts(
        run(**{k: as_complex(v) for k, v in moved(arguments, lambda x: H * 1j * r(*x.shape, seed=7)).items()})
    )
    plus, minus = (parts(op(**moved(arguments, lambda x, s=s: s * 1e-6 * r(*x.shape, seed=7)))) for s in (1, -1))

    for value, at_plus, at_minus in list(zip(values, plus, minus, strict=True))[:2]:
        if value.numel() and value.is_complex():
            torch.testing.assert_close(value.real, (at_plus + at_minus) / 2, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(value.imag / H, (at_plus - at_minus) / 2e-6, rtol=1e-6, atol=1e-8)
    assert any(value.is_complex() and float(value.imag.abs().max()) > 0 for value in values)


def test_complex_erf_is_right_to_rounding_on_the_real_axis():
    x = torch.linspace(-7, 7, 2001, dtype=torch.float64)

    torch.testing.assert_close(erf(x.to(torch.complex128)).real, torch.erf(x), rtol=2e-15, atol=0)
