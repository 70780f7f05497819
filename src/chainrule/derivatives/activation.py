"""Activation functions, one tensor in and one out, with the value of the derivative that PyTorch takes at each kink.

Sources: GELU, Hendrycks and Gimpel, arXiv 1606.08415; ELU, Clevert et al., 1511.07289; SELU, Klambauer et al.,
1706.02515; Mish, Misra, 1908.08681; hard swish, Howard et al., 1905.02244, sec. 5.2; SiLU, Elfwing et al., 1702.03118.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
At = Mapping[str, Any]


def _at_zero(self: Tensor) -> Tensor:
    return self == 0


# --- rectifiers: pieces of straight lines -----------------------------------------------------------------------------


def _relu_frozen(at: At, self: Tensor) -> Tensor:
    return torch.where(at["self"] > 0, self, 0)


@rules.local(aten.relu.default, kink=_at_zero, frozen=_relu_frozen)
def relu(y: Tensor, self: Tensor) -> Tensor:
    """y = max(self, 0)         dy/dself = [self > 0]       (0 at the kink, as PyTorch)"""
    return self > 0


def _leaky_relu_frozen(at: At, self: Tensor, negative_slope: float) -> Tensor:
    return torch.where(at["self"] > 0, self, negative_slope * self)


@rules.local(aten.leaky_relu.default, kink=_at_zero, frozen=_leaky_relu_frozen)
def leaky_relu(y: Tensor, self: Tensor, negative_slope: float) -> Tensor:
    """y = self if self > 0 else a self     dy/dself = 1 if self > 0 else a"""
    return torch.where(self > 0, 1, torch.full_like(self, negative_slope))


def _clip_frozen(at: Tensor, self: Tensor, low: float, high: float) -> Tensor:
    return torch.where(at <= low, low, torch.where(at >= high, high, self))


def _relu6_frozen(at: At, self: Tensor) -> Tensor:
    return _clip_frozen(at["self"], self, 0.0, 6.0)


@rules.local(aten.relu6.default, kink=lambda self: (self == 0) | (self == 6), frozen=_relu6_frozen)
def relu6(y: Tensor, self: Tensor) -> Tensor:
    """y = min(max(self, 0), 6)     dy/dself = [0 < self < 6]"""
    return (self > 0) & (self < 6)


def _hardtanh_kink(self: Tensor, min_val: float, max_val: float) -> Tensor:
    return (self == min_val) | (self == max_val)


def _hardtanh_frozen(at: At, self: Tensor, min_val: float, max_val: float) -> Tensor:
    return _clip_frozen(at["self"], self, min_val, max_val)


@rules.local(aten.hardtanh.default, kink=_hardtanh_kink, frozen=_hardtanh_frozen)
def hardtanh(y: Tensor, self: Tensor, min_val: float, max_val: float) -> Tensor:
    """y = min(max(self, a), b)     dy/dself = [a < self < b]"""
    return (self > min_val) & (self < max_val)


def _hardsigmoid_frozen(at: At, self: Tensor) -> Tensor:
    return _clip_frozen(at["self"] / 6 + 0.5, self / 6 + 0.5, 0.0, 1.0)


@rules.local(aten.hardsigmoid.default, kink=lambda self: self.abs() == 3, frozen=_hardsigmoid_frozen)
def hardsigmoid(y: Tensor, self: Tensor) -> Tensor:
    """y = min(max(self/6 + 1/2, 0), 1)     dy/dself = [−3 < self < 3] / 6"""
    return torch.where(self.abs() < 3, torch.full_like(self, 1 / 6), 0)


def _threshold_frozen(at: At, self: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(at["self"] > threshold, self, value)


@rules.local(aten.threshold.default, kink=lambda self, threshold: self == threshold, frozen=_threshold_frozen)
def above_threshold(y: Tensor, self: Tensor, threshold: float) -> Tensor:
    """y = self if self > threshold else value      dy/dself = [self > threshold]"""
    return self > threshold


def _shrink_kink(self: Tensor, lambd: float) -> Tensor:
    return self.abs() == lambd


def _hardshrink_frozen(at: At, self: Tensor, lambd: float) -> Tensor:
    return torch.where(at["self"].abs() > lambd, self, 0)


@rules.local(aten.hardshrink.default, kink=_shrink_kink, frozen=_hardshrink_frozen)
def hardshrink(y: Tensor, self: Tensor, lambd: float) -> Tensor:
    """y = self if |self| > λ else 0        dy/dself = [|self| > λ]"""
    return self.abs() > lambd


def _softshrink_frozen(at: At, self: Tensor, lambd: float) -> Tensor:
    return torch.where(at["self"].abs() > lambd, self - lambd * at["self"].sign(), 0)


@rules.local(aten.softshrink.default, kink=_shrink_kink, frozen=_softshrink_frozen)
def softshrink(y: Tensor, self: Tensor, lambd: float) -> Tensor:
    """y = sign(self) max(|self| − λ, 0)    dy/dself = [|self| > λ]"""
    return self.abs() > lambd


# --- rectifiers with curved pieces ------------------------------------------------------------------------------------


def _elu_frozen(at: At, self: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    return scale * torch.where(at["self"] > 0, self, alpha * torch.expm1(input_scale * self))


@rules.local(aten.elu.default, kink=_at_zero, frozen=_elu_frozen)
def elu(y: Tensor, self: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    """y = self if self > 0 else α (exp self − 1)       dy/dself = 1 if self > 0 else α exp self"""
    return scale * torch.where(self > 0, 1, alpha * input_scale * torch.exp(input_scale * self))


def _selu_frozen(at: At, self: Tensor) -> Tensor:
    return _elu_frozen(at, self, SELU_ALPHA, SELU_SCALE, 1.0)


@rules.local(aten.selu.default, kink=_at_zero, frozen=_selu_frozen)
def selu(y: Tensor, self: Tensor) -> Tensor:
    """y = s (self if self > 0 else α (exp self − 1))   dy/dself = s (1 if self > 0 else α exp self)"""
    return SELU_SCALE * torch.where(self > 0, 1, SELU_ALPHA * torch.exp(self))


def _celu_frozen(at: At, self: Tensor, alpha: float) -> Tensor:
    return _elu_frozen(at, self, alpha, 1.0, 1 / alpha)


@rules.local(aten.celu.default, kink=_at_zero, frozen=_celu_frozen)
def celu(y: Tensor, self: Tensor, alpha: float) -> Tensor:
    """y = self if self > 0 else α (exp(self/α) − 1)    dy/dself = 1 if self > 0 else exp(self/α)"""
    return torch.where(self > 0, 1, torch.exp(self / alpha))


def _hardswish_frozen(at: At, self: Tensor) -> Tensor:
    return torch.where(at["self"] <= -3, 0, torch.where(at["self"] >= 3, self, self * (self + 3) / 6))


@rules.local(aten.hardswish.default, kink=lambda self: self.abs() == 3, frozen=_hardswish_frozen)
def hardswish(y: Tensor, self: Tensor) -> Tensor:
    """y = self min(max(self + 3, 0), 6) / 6    dy/dself = 0, self/3 + 1/2 or 1 for self ≤ −3, between, self ≥ 3"""
    return torch.where(self <= -3, 0, torch.where(self >= 3, 1, self / 3 + 0.5))


def _softplus_linear(self: Tensor, beta: float, threshold: float) -> Tensor:
    return self * beta > threshold


def _softplus_kink(self: Tensor, beta: float, threshold: float) -> Tensor:
    return self * beta == threshold


def _softplus_frozen(at: At, self: Tensor, beta: float, threshold: float) -> Tensor:
    curve = torch.log1p(torch.exp(beta * self)) / beta
    return torch.where(_softplus_linear(at["self"], beta, threshold), self, curve)


@rules.local(aten.softplus.default, kink=_softplus_kink, frozen=_softplus_frozen)
def softplus(y: Tensor, self: Tensor, beta: float, threshold: float) -> Tensor:
    """y = ln(1 + exp(β self)) / β      dy/dself = σ(β self)        (1 above the threshold, where y = self)"""
    return torch.where(_softplus_linear(self, beta, threshold), 1, torch.sigmoid(beta * self))


# --- smooth activations -----------------------------------------------------------------------------------------------


@rules.local(aten.gelu.default)
def gelu(y: Tensor, self: Tensor, approximate: str) -> Tensor:
    """y = self Φ(self)         dy/dself = Φ(self) + self φ(self), Φ the normal distribution, φ its density"""
    if approximate == "tanh":
        return _gelu_tanh(self)
    distribution = (self * -math.sqrt(0.5)).erfc_().mul_(0.5)  # in place: fresh memory costs more than the product
    density = (self * self).mul_(-0.5).exp_()
    return distribution.addcmul_(self, density, value=1 / math.sqrt(2 * math.pi))


def _gelu_tanh(self: Tensor) -> Tensor:
    """y = self (1 + tanh u)/2, u = √(2/π)(self + c self³)     dy/dself = (1 + t)/2 + self (1 − t²) u'/2, t = tanh u"""
    root, cubic = math.sqrt(2 / math.pi), 0.044715
    squared = self * self
    t = (cubic * squared).add_(1).mul_(self).mul_(root).tanh_()
    u_slope = squared.mul_(3 * cubic).add_(1).mul_(root)
    return (1 - t * t).mul_(self).mul_(u_slope).add_(t).add_(1).mul_(0.5)


@rules.local(aten.silu.default)
def silu(y: Tensor, self: Tensor) -> Tensor:
    """y = self σ(self)         dy/dself = σ + y (1 − σ)"""
    sigma = torch.sigmoid(self)
    return sigma + y * (1 - sigma)


@rules.local(aten.mish.default)
def mish(y: Tensor, self: Tensor) -> Tensor:
    """y = self tanh(ln(1 + exp self))      dy/dself = t + self σ(self) (1 − t²), t = tanh(ln(1 + exp self))"""
    t = torch.tanh(torch.logaddexp(self, torch.zeros_like(self)))
    return t + self * torch.sigmoid(self) * (1 - t * t)


@rules.local(aten.log_sigmoid.default)
def log_sigmoid(y: Tensor, self: Tensor) -> Tensor:
    """y = ln σ(self)           dy/dself = σ(−self)"""
    return torch.sigmoid(-self)


def _log_sigmoid_forward_jvp(y: tuple[Tensor, Tensor], t: Mapping[str, Tensor], self: Tensor) -> tuple[Tensor, Tensor]:
    return t["self"] * torch.sigmoid(-self), torch.zeros_like(y[1])


def _log_sigmoid_forward_bound(g: tuple[Tensor, Tensor], y: Any, self: Tensor) -> Mapping[str, Tensor]:
    return {"self": g[0].abs() * torch.sigmoid(-self)}


@rules.vjp(aten.log_sigmoid_forward.default, jvp=_log_sigmoid_forward_jvp, abs_bound=_log_sigmoid_forward_bound)
def log_sigmoid_forward(g: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], self: Tensor) -> Mapping[str, Tensor]:
    """y = ln σ(self)           dy/dself = σ(−self)         (the second output is a buffer of PyTorch's)"""
    return {"self": g[0] * torch.sigmoid(-self)}


# --- with a weight or a gate ------------------------------------------------------------------------------------------


def _slopes(self: Tensor, weight: Tensor) -> Tensor:
    """The slopes a, one for all or one per channel, shaped to broadcast over self (N, C, ...)."""
    return (
        weight.reshape(-1, *(1,) * (self.dim() - 2)) if self.dim() >= 2 else weight.reshape(weight.shape[: self.dim()])
    )


def _prelu_frozen(at: At, self: Tensor, weight: Tensor) -> Tensor:
    return torch.where(at["self"] > 0, self, _slopes(self, weight) * self)


def _prelu_jvp(y: Tensor, t: Mapping[str, Tensor], self: Tensor, weight: Tensor) -> Tensor:
    ahead, turn = t.get("self", torch.zeros_like(self)), t.get("weight", torch.zeros_like(weight))
    return torch.where(self > 0, ahead, _slopes(self, weight) * ahead + _slopes(self, turn) * self)


def _prelu_bound(g: Tensor, y: Tensor, self: Tensor, weight: Tensor) -> Mapping[str, Tensor]:
    slopes = _slopes(self, weight)
    turned = (g * self).abs() * (self <= 0)
    return {
        "self": torch.where(self > 0, g, slopes * g).abs(),
        "weight": turned.sum_to_size(slopes.shape).reshape(weight.shape),
    }


@rules.vjp(
    aten.prelu.default,
    aten._prelu_kernel.default,
    kink=_at_zero,
    frozen=_prelu_frozen,
    jvp=_prelu_jvp,
    abs_bound=_prelu_bound,
)
def prelu(g: Tensor, y: Tensor, self: Tensor, weight: Tensor) -> Mapping[str, Tensor]:
    """y = self if self > 0 else a self     dy/dself = 1 if self > 0 else a     dy/da = min(self, 0)"""
    slopes = _slopes(self, weight)
    turned = torch.where(self > 0, 0, g * self)
    return {
        "self": torch.where(self > 0, g, slopes * g),
        "weight": turned.sum_to_size(slopes.shape).reshape(weight.shape),
    }


def _glu_jvp(y: Tensor, t: Mapping[str, Tensor], self: Tensor, dim: int) -> Tensor:
    a, b = t["self"].chunk(2, dim)
    gate = torch.sigmoid(self.chunk(2, dim)[1])
    return a * gate + y * (1 - gate) * b


def _glu_bound(g: Tensor, y: Tensor, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    return {"self": glu(g, y, self, dim)["self"].abs()}


@rules.vjp(aten.glu.default, jvp=_glu_jvp, abs_bound=_glu_bound)
def glu(g: Tensor, y: Tensor, self: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y = a σ(b), self = [a, b]    dy/da = σ(b)    dy/db = y (1 − σ(b))"""
    gate = torch.sigmoid(self.chunk(2, dim)[1])
    return {"self": torch.cat([g * gate, g * y * (1 - gate)], dim)}
