"""Formulas that are right for complex numbers: what the complex step runs where torch has an op for real ones only.

A formula here equals the op for real arguments and is holomorphic near them, so that the imaginary part carries the
derivative. Branches (which number is larger, the sign) are taken on the real part, through the `frozen` form of the
op's rule or here. `var` and `abs` of a complex tensor run in torch but are other functions (moduli): written anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chainrule.compare import written_out
from chainrule.errors import ChainruleError
from chainrule.graph import Node, Value

aten = torch.ops.aten
Form = Callable[..., Value]


def complex_form(node: Node) -> Form | None:
    """What computes the node for complex arguments; None if that is the `frozen` form of its rule.

    Raises ChainruleError for an op that has no form here.
    """
    if (form := COMPLEX_FORMS.get(node.op)) is not None:
        return form
    if node.op in PIECEWISE:
        return None
    if node.op in HOLOMORPHIC:
        return lambda **arguments: node.op(**{name: as_complex(value) for name, value in arguments.items()})
    raise ChainruleError(
        f"the complex step cannot pass {node.op} at {node.where} ({node.source}): neither torch nor chainrule has a "
        f"formula of it that is right for complex numbers; use method='order8'"
    )


def as_complex(value: Any) -> Any:
    """Real float tensors as complex ones, since few ops mix the two; everything else as it is."""
    if isinstance(value, list):
        return [as_complex(item) for item in value]
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.complex128)
    return value


def softmax(self: Tensor, dim: int, **_: Any) -> Tensor:
    """exp(x) / Σ exp(x), shifted by the largest real part."""
    e = torch.exp(self - self.real.amax(dim=dim, keepdim=True))
    return e / e.sum(dim=dim, keepdim=True)


def log_softmax(self: Tensor, dim: int, **_: Any) -> Tensor:
    """x - log Σ exp(x), shifted by the largest real part."""
    shifted = self - self.real.amax(dim=dim, keepdim=True)
    return shifted - torch.log(torch.exp(shifted).sum(dim=dim, keepdim=True))


def layer_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float, **_: Any
) -> Tensor:
    """γ (x - μ) / √(σ² + eps) + β over the last dimensions."""
    y = written_out.normalised(input, range(-len(normalized_shape), 0), eps)
    return written_out.affine(y, weight, bias)


def erf(self: Tensor) -> Tensor:
    """2/√π · exp(-z²) Σ 2ⁿ z²ⁿ⁺¹ / (2n+1)!!, all terms of one sign; ±1 where |Re z| > 6 (Abramowitz & Stegun 7.1.6)."""
    z = torch.where(self.real.abs() > 6, 0, self)
    square, term = 2 * z * z, z
    total = term
    for n in range(1, 130):  # at |z| = 6 the terms fall below 1e-17 of the sum after 120
        term = term * square / (2 * n + 1)
        total = total + term
    inside = 2 / math.sqrt(math.pi) * torch.exp(-z * z) * total
    return torch.where(self.real.abs() > 6, torch.sign(self.real).to(self.dtype), inside)


def gelu(self: Tensor, approximate: str) -> Tensor:
    """x Φ(x), or its approximation by tanh."""
    if approximate == "tanh":
        return 0.5 * self * (1 + torch.tanh(math.sqrt(2 / math.pi) * (self + 0.044715 * self**3)))
    return 0.5 * self * (1 + erf(self / math.sqrt(2)))


def softplus(self: Tensor, beta: float, threshold: float) -> Tensor:
    """log(1 + exp(βx)) / β, and x beyond the threshold, as torch."""
    inner = torch.where(self.real * beta > threshold, 0, self)
    return torch.where(self.real * beta > threshold, self, torch.log1p(torch.exp(beta * inner)) / beta)


def log_sigmoid(self: Tensor) -> Tensor:
    """-log(1 + exp(-x)), with exp of a number whose real part is not positive."""
    positive = self.real >= 0
    e = torch.exp(torch.where(positive, -self, self))
    return torch.where(positive, 0, self) - torch.log1p(e)


def absolute(self: Tensor) -> Tensor:
    """x or -x, by the sign of the real part."""
    return torch.where(self.real >= 0, self, -self)


def variance(self: Tensor, dim: list[int] | None, correction: float | None, keepdim: bool) -> Tensor:
    """Σ (x - μ)² / (n - correction), not of moduli."""
    dims = tuple(range(self.dim())) if not dim else tuple(dim)
    squares = (self - self.mean(dim=dims, keepdim=True)) ** 2
    count = math.prod(self.shape[d] for d in dims)
    return squares.sum(dim=dims, keepdim=keepdim) / (count - (1 if correction is None else correction))


def cross_entropy(
    self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int, label_smoothing: float
) -> Tensor:
    """-log softmax(x)[target], for targets that are classes or probabilities."""
    logs = log_softmax(self, dim=1 if self.dim() > 1 else 0)
    classes = 1 if self.dim() > 1 else 0
    w = torch.ones(self.shape[classes], dtype=torch.float64) if weight is None else weight
    across = w.view(-1, *[1] * (self.dim() - 1 - classes))
    if target.is_floating_point():
        smooth = target * (1 - label_smoothing) + label_smoothing / self.shape[classes]
        losses = -(logs * across * smooth).sum(dim=classes)
        return _reduced(losses, reduction, float(losses.numel()))
    kept = target != ignore_index
    index = torch.where(kept, target, 0)
    each = w[index] * kept
    picked = logs.gather(classes, index.unsqueeze(classes)).squeeze(classes)
    losses = -(picked * each * (1 - label_smoothing))
    losses = losses - label_smoothing / self.shape[classes] * (logs * across).sum(dim=classes) * kept
    return _reduced(losses, reduction, each.sum())


def nll_loss(self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int) -> Tensor:
    """-x[target]."""
    classes = 1 if self.dim() > 1 else 0
    w = torch.ones(self.shape[classes], dtype=torch.float64) if weight is None else weight
    kept = target != ignore_index
    index = torch.where(kept, target, 0)
    each = w[index] * kept
    picked = self.gather(classes, index.unsqueeze(classes)).squeeze(classes)
    return _reduced(-picked * each, reduction, each.sum())


def mse_loss(self: Tensor, target: Tensor, reduction: int) -> Tensor:
    """(x - y)², not the square of a modulus."""
    losses = (self - target) * (self - target)
    return _reduced(losses, reduction, float(losses.numel()))


def convolution(convolve: Form, input: Tensor, weight: Tensor, bias: Tensor | None, **rest: Any) -> Tensor:
    """Four real convolutions: torch's own complex one takes (a + b)(c + d) - ac - bd, in which 1e-30 is lost."""
    x, w = as_complex(input), as_complex(weight)
    parts = [convolve(input=a, weight=b, bias=None, **rest) for a in (x.real, x.imag) for b in (w.real, w.imag)]
    y = torch.complex(parts[0] - parts[3], parts[1] + parts[2])
    return y if bias is None else y + bias.reshape(-1, *[1] * (weight.dim() - 2))


def attention(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
    """Scaled dot-product attention, by complex softmax."""
    return written_out.attention(as_complex(query), as_complex(key), as_complex(value), **rest, softmax=softmax)


def _reduced(losses: Tensor, reduction: int, count: Any) -> Tensor:
    return losses if reduction == 0 else losses.sum() / count if reduction == 1 else losses.sum()


COMPLEX_FORMS: Mapping[Any, Form] = {
    aten.softmax.int: softmax,
    aten._softmax.default: softmax,
    aten.log_softmax.int: log_softmax,
    aten._log_softmax.default: log_softmax,
    aten.layer_norm.default: layer_norm,
    aten._native_batch_norm_legit_functional.default: written_out.batch_norm,
    aten.erf.default: erf,
    aten.gelu.default: gelu,
    aten.softplus.default: softplus,
    aten.log_sigmoid.default: log_sigmoid,
    aten.abs.default: absolute,
    aten.var.correction: variance,
    aten.cross_entropy_loss.default: cross_entropy,
    aten.nll_loss.default: nll_loss,
    aten.mse_loss.default: mse_loss,
    aten.scaled_dot_product_attention.default: attention,
    aten.conv1d.default: partial(convolution, aten.conv1d.default),
    aten.conv2d.default: partial(convolution, aten.conv2d.default),
    aten.view.default: written_out.reshaped,
    aten._unsafe_view.default: written_out.reshaped,
}

# Ops with straight pieces: on a held branch, the `frozen` form of their rules is right for complex numbers.
PIECEWISE = frozenset(
    {
        aten.relu.default,
        aten.leaky_relu.default,
        aten.relu6.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.clamp_min.default,
        aten.clamp_max.default,
        aten.maximum.default,
        aten.minimum.default,
        aten.amax.default,
        aten.amin.default,
        aten.embedding.default,
    }
)

# Ops of torch that are holomorphic as they stand: the tests try each against real differences.
HOLOMORPHIC = frozenset(
    {
        aten.linear.default,
        aten.mm.default,
        aten.bmm.default,
        aten.matmul.default,
        aten.addmm.default,
        aten.add.Tensor,
        aten.add.Scalar,
        aten.sub.Tensor,
        aten.sub.Scalar,
        aten.rsub.Scalar,
        aten.mul.Tensor,
        aten.mul.Scalar,
        aten.div.Tensor,
        aten.div.Scalar,
        aten.neg.default,
        aten.reciprocal.default,
        aten.exp.default,
        aten.log.default,
        aten.log1p.default,
        aten.expm1.default,
        aten.sin.default,
        aten.cos.default,
        aten.tanh.default,
        aten.sigmoid.default,
        aten.silu.default,
        aten.sqrt.default,
        aten.rsqrt.default,
        aten.pow.Tensor_Scalar,
        aten.sum.default,
        aten.sum.dim_IntList,
        aten.mean.default,
        aten.mean.dim,
        aten.cumsum.default,
        aten.logsumexp.default,
        aten.transpose.int,
        aten.t.default,
        aten.permute.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.expand.default,
        aten.broadcast_tensors.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.chunk.default,
        aten.cat.default,
        aten.stack.default,
        aten.index.Tensor,
        aten.index_select.default,
        aten.gather.default,
        aten.clone.default,
        aten.alias.default,
        aten.contiguous.default,
        aten.masked_fill.Scalar,
        aten.where.self,
    }
)
