"""Smooth functions of one tensor, entry by entry: the derivative of each y = f(self).

Source of the formulas: Abramowitz and Stegun, Handbook of Mathematical Functions, sections 4.1 to 4.6, 6.3 and 7.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.derivatives.rule import Rules

aten = torch.ops.aten
rules = Rules()

# --- exponentials and logarithms --------------------------------------------------------------------------------------


@rules.local(aten.exp.default)
def exp(y: Tensor) -> Tensor:
    """y = exp(self)            dy/dself = y"""
    return y


@rules.local(aten.expm1.default)
def expm1(y: Tensor) -> Tensor:
    """y = exp(self) − 1        dy/dself = y + 1"""
    return y + 1


@rules.local(aten.exp2.default)
def exp2(y: Tensor) -> Tensor:
    """y = 2^self               dy/dself = y ln 2"""
    return y * math.log(2)


@rules.local(aten.log.default, domain=lambda self: self > 0)
def log(y: Tensor, self: Tensor) -> Tensor:
    """y = ln self              dy/dself = 1 / self"""
    return self.reciprocal()


@rules.local(aten.log1p.default, domain=lambda self: self > -1)
def log1p(y: Tensor, self: Tensor) -> Tensor:
    """y = ln(1 + self)         dy/dself = 1 / (1 + self)"""
    return (1 + self).reciprocal()


@rules.local(aten.log2.default, domain=lambda self: self > 0)
def log2(y: Tensor, self: Tensor) -> Tensor:
    """y = ln self / ln 2       dy/dself = 1 / (self ln 2)"""
    return 1 / (self * math.log(2))


@rules.local(aten.log10.default, domain=lambda self: self > 0)
def log10(y: Tensor, self: Tensor) -> Tensor:
    """y = ln self / ln 10      dy/dself = 1 / (self ln 10)"""
    return 1 / (self * math.log(10))


# --- powers -----------------------------------------------------------------------------------------------------------


@rules.local(aten.sqrt.default, domain=lambda self: self > 0)
def sqrt(y: Tensor) -> Tensor:
    """y = √self                dy/dself = 1 / (2 y)"""
    return 1 / (2 * y)


@rules.local(aten.rsqrt.default, domain=lambda self: self > 0)
def rsqrt(y: Tensor) -> Tensor:
    """y = 1 / √self            dy/dself = −y³ / 2"""
    return -0.5 * y * y * y


@rules.local(aten.reciprocal.default, domain=lambda self: self != 0)
def reciprocal(y: Tensor) -> Tensor:
    """y = 1 / self             dy/dself = −y²"""
    return -y * y


@rules.local(aten.square.default)
def square(y: Tensor, self: Tensor) -> Tensor:
    """y = self²                dy/dself = 2 self"""
    return 2 * self


@rules.vjp(aten.neg.default, aten.negative.default, linear_in=("self",))
def neg(g: Tensor, y: Tensor) -> Mapping[str, Tensor]:
    """y = −self                dy/dself = −1"""
    return {"self": -g}


# --- circular and hyperbolic functions --------------------------------------------------------------------------------


@rules.local(aten.sin.default)
def sin(y: Tensor, self: Tensor) -> Tensor:
    """y = sin self             dy/dself = cos self"""
    return self.cos()


@rules.local(aten.cos.default)
def cos(y: Tensor, self: Tensor) -> Tensor:
    """y = cos self             dy/dself = −sin self"""
    return -self.sin()


@rules.local(aten.tan.default)
def tan(y: Tensor) -> Tensor:
    """y = tan self             dy/dself = 1 + y²"""
    return 1 + y * y


@rules.local(aten.asin.default, domain=lambda self: self.abs() < 1)
def asin(y: Tensor, self: Tensor) -> Tensor:
    """y = arcsin self          dy/dself = 1 / √(1 − self²)"""
    return (1 - self * self).rsqrt()


@rules.local(aten.acos.default, domain=lambda self: self.abs() < 1)
def acos(y: Tensor, self: Tensor) -> Tensor:
    """y = arccos self          dy/dself = −1 / √(1 − self²)"""
    return -(1 - self * self).rsqrt()


@rules.local(aten.atan.default)
def atan(y: Tensor, self: Tensor) -> Tensor:
    """y = arctan self          dy/dself = 1 / (1 + self²)"""
    return 1 / (1 + self * self)


@rules.local(aten.sinh.default)
def sinh(y: Tensor, self: Tensor) -> Tensor:
    """y = sinh self            dy/dself = cosh self"""
    return self.cosh()


@rules.local(aten.cosh.default)
def cosh(y: Tensor, self: Tensor) -> Tensor:
    """y = cosh self            dy/dself = sinh self"""
    return self.sinh()


@rules.local(aten.tanh.default)
def tanh(y: Tensor) -> Tensor:
    """y = tanh self            dy/dself = 1 − y²"""
    return 1 - y * y


@rules.local(aten.asinh.default)
def asinh(y: Tensor, self: Tensor) -> Tensor:
    """y = arsinh self          dy/dself = 1 / √(self² + 1)"""
    return (self * self + 1).rsqrt()


@rules.local(aten.acosh.default, domain=lambda self: self > 1)
def acosh(y: Tensor, self: Tensor) -> Tensor:
    """y = arcosh self          dy/dself = 1 / √(self² − 1)"""
    return (self * self - 1).rsqrt()


@rules.local(aten.atanh.default, domain=lambda self: self.abs() < 1)
def atanh(y: Tensor, self: Tensor) -> Tensor:
    """y = artanh self          dy/dself = 1 / (1 − self²)"""
    return 1 / (1 - self * self)


# --- the logistic, error and gamma functions --------------------------------------------------------------------------


@rules.local(aten.sigmoid.default, aten.special_expit.default)
def sigmoid(y: Tensor) -> Tensor:
    """y = 1 / (1 + exp(−self)) dy/dself = y (1 − y)"""
    return y * (1 - y)


@rules.local(aten.logit.default, domain=lambda self: (self > 0) & (self < 1))
def logit(y: Tensor, self: Tensor, eps: float | None) -> Tensor:
    """y = ln(self / (1 − self))    dy/dself = 1 / (self (1 − self))    (0 where eps clips)"""
    slope = 1 / (self * (1 - self))
    return slope if eps is None else torch.where((self < eps) | (self > 1 - eps), 0, slope)


@rules.local(aten.erf.default)
def erf(y: Tensor, self: Tensor) -> Tensor:
    """y = 2/√π ∫₀^self exp(−t²) dt     dy/dself = 2/√π exp(−self²)"""
    return 2 / math.sqrt(math.pi) * torch.exp(-self * self)


@rules.local(aten.erfc.default)
def erfc(y: Tensor, self: Tensor) -> Tensor:
    """y = 1 − erf self         dy/dself = −2/√π exp(−self²)"""
    return -2 / math.sqrt(math.pi) * torch.exp(-self * self)


@rules.local(aten.erfinv.default, domain=lambda self: self.abs() < 1)
def erfinv(y: Tensor) -> Tensor:
    """y = erf⁻¹ self           dy/dself = √π/2 exp(y²)"""
    return math.sqrt(math.pi) / 2 * torch.exp(y * y)


@rules.local(aten.lgamma.default)
def lgamma(y: Tensor, self: Tensor) -> Tensor:
    """y = ln |Γ(self)|         dy/dself = ψ(self), the digamma function"""
    return torch.digamma(self)
