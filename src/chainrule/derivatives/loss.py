"""Losses made of one term per element, summed or averaged: ℓ_i of a prediction (`self`) and its target.

With reduction "mean" every term carries g/n, else g; the rest of each rule is dℓ/dself and dℓ/dtarget. What the terms
mean, and when to choose which: the room `losses`. At a kink the slope is PyTorch's: 0 for |x|, that of the line for max(0, line).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.rule import Rules, call_by_name

aten = torch.ops.aten
rules = Rules()

NONE, MEAN = 0, 1  # PyTorch's numbers for the reductions; 2 is the sum
At = Mapping[str, Any]
Vjp = TypeVar("Vjp", bound=Callable[..., Any])
Gradients = dict[str, Tensor]


# --- reduction --------------------------------------------------------------------------------------------------------


def per_term(g: Tensor, terms: Tensor, reduction: int) -> Tensor:
    """dL/dℓ_i: g/n where the loss is a mean, else g."""
    return g / terms.numel() if reduction == MEAN else g


def reduced(terms: Tensor, reduction: int) -> Tensor:
    """The terms themselves, their mean, or their sum."""
    return terms if reduction == NONE else terms.mean() if reduction == MEAN else terms.sum()


def termwise(*ops: OpOverload, **declared: Any) -> Callable[[Vjp], Vjp]:
    """Register the vjp of a loss of independent terms; abs_bound and jvp follow unless declared.

    Gradients that are products bound their own rounding. The tangent is ẏ = Σ_i Σ_a ∂ℓ_i/∂a · ȧ.
    """

    def register(vjp: Vjp) -> Vjp:
        def bound(g: Tensor, y: Tensor, **arguments: Any) -> Gradients:
            return {name: part.abs() for name, part in call_by_name(vjp, arguments, g, y).items()}

        def jvp(y: Tensor, t: Mapping[str, Tensor], **arguments: Any) -> Tensor:
            slopes = call_by_name(vjp, arguments, torch.ones_like(y), y)
            moved: Tensor = sum(t[name] * slope for name, slope in slopes.items() if name in t)
            return moved if arguments["reduction"] == NONE else moved.sum()

        rules.vjp(*ops, **{"abs_bound": bound, "jvp": jvp, **declared})(vjp)
        return vjp

    return register


# --- distance between prediction and target ---------------------------------------------------------------------------


@termwise(aten.mse_loss.default)
def mse_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int) -> Gradients:
    """ℓ = (self − target)²            dℓ/dself = 2 (self − target) = −dℓ/dtarget"""
    error = self - target
    slope = per_term(g, error, reduction) * 2 * error
    return {"self": slope, "target": -slope}


def _at_target(self: Tensor, target: Tensor) -> Tensor:
    return self == target


def _l1_frozen(at: At, self: Tensor, target: Tensor, reduction: int) -> Tensor:
    return reduced(torch.sign(at["self"] - at["target"]) * (self - target), reduction)


@termwise(aten.l1_loss.default, kink=_at_target, frozen=_l1_frozen)
def l1_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int) -> Gradients:
    """ℓ = |self − target|            dℓ/dself = sign(self − target) = −dℓ/dtarget"""
    error = self - target
    slope = per_term(g, error, reduction) * error.sign()
    return {"self": slope, "target": -slope}


def _huber_terms(error: Tensor, error_at: Tensor, delta: float) -> Tensor:
    """½ error² within δ of 0, else δ (|error| − δ/2); which of them, `error_at` decides."""
    return torch.where(error_at.abs() <= delta, error.square() / 2, delta * (error_at.sign() * error - delta / 2))


def _huber_frozen(at: At, self: Tensor, target: Tensor, reduction: int, delta: float) -> Tensor:
    return reduced(_huber_terms(self - target, at["self"] - at["target"], delta), reduction)


@termwise(aten.huber_loss.default, frozen=_huber_frozen)
def huber_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int, delta: float) -> Gradients:
    """ℓ = e²/2 if |e| ≤ δ else δ (|e| − δ/2),  e = self − target            dℓ/dself = clamp(e, −δ, δ) = −dℓ/dtarget"""
    error = self - target
    slope = per_term(g, error, reduction) * error.clamp(-delta, delta)
    return {"self": slope, "target": -slope}


def _smooth_l1_kink(self: Tensor, target: Tensor, beta: float) -> Tensor:
    return (self == target) & (beta == 0)


def _smooth_l1_frozen(at: At, self: Tensor, target: Tensor, reduction: int, beta: float) -> Tensor:
    if beta == 0:
        return _l1_frozen(at, self, target, reduction)
    return reduced(_huber_terms(self - target, at["self"] - at["target"], beta) / beta, reduction)


@termwise(aten.smooth_l1_loss.default, kink=_smooth_l1_kink, frozen=_smooth_l1_frozen)
def smooth_l1_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int, beta: float) -> Gradients:
    """ℓ = e²/2β if |e| < β else |e| − β/2,  e = self − target            dℓ/dself = clamp(e/β, −1, 1) = −dℓ/dtarget"""
    error = self - target
    slope = per_term(g, error, reduction) * (error.sign() if beta == 0 else (error / beta).clamp(-1, 1))
    return {"self": slope, "target": -slope}


# --- log likelihoods --------------------------------------------------------------------------------------------------


def _probability(self: Tensor) -> Tensor:
    return (self >= 0) & (self <= 1)


def weighted(g: Tensor, self: Tensor, weight: Tensor | None, reduction: int) -> Tensor:
    """dL/dℓ_i where the terms carry weights."""
    g = per_term(g, self, reduction)
    return g if weight is None else g * weight


def _bce_frozen(at: At, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int) -> Tensor:
    """The op takes no target outside [0, 1], where a difference may step. Logs that stop at −100 are held there."""
    log_x = torch.where(at["self"].log() < -100, -100, self.log())
    log_other = torch.where((1 - at["self"]).log() < -100, -100, (1 - self).log())
    terms = -(target * log_x + (1 - target) * log_other)
    return reduced(terms if weight is None else terms * weight, reduction)


def _bce_bound(g: Tensor, y: Tensor, self: Tensor, target: Tensor, weight: Any, reduction: int) -> Gradients:
    g = weighted(g, self, weight, reduction).abs()
    variance = (self * (1 - self)).clamp_min(1e-12)
    return {"self": g * (self.abs() + target.abs()) / variance, "target": g * ((1 - self).log() + self.log()).abs()}


@termwise(
    aten.binary_cross_entropy.default,
    nondiff=("weight",),
    domain=_probability,
    frozen=_bce_frozen,
    abs_bound=_bce_bound,
)
def binary_cross_entropy(
    g: Tensor, y: Tensor, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int
) -> Gradients:
    """ℓ = −t log x − (1 − t) log(1 − x),  x = self, t = target            dℓ/dx = (x − t)/(x (1 − x))

    dℓ/dt = log(1 − x) − log x. As in PyTorch x (1 − x) is no less than 1e-12.
    """
    g = weighted(g, self, weight, reduction)
    variance = (self * (1 - self)).clamp_min(1e-12)
    return {"self": g * (self - target) / variance, "target": g * ((1 - self).log() - self.log())}


def _logits_bound(
    g: Tensor, y: Tensor, self: Tensor, target: Tensor, weight: Any, pos_weight: Any, reduction: int
) -> Gradients:
    g, p = weighted(g, self, weight, reduction).abs(), 1 if pos_weight is None else pos_weight
    of_one, of_zero = target.abs() * p, 1 + target.abs()
    ahead = (p + 1) * F.softplus(-self)
    return {"self": g * (of_zero * torch.sigmoid(self) + of_one), "target": g * (self.abs() + ahead)}


@termwise(aten.binary_cross_entropy_with_logits.default, nondiff=("weight", "pos_weight"), abs_bound=_logits_bound)
def binary_cross_entropy_with_logits(
    g: Tensor,
    y: Tensor,
    self: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: int,
) -> Gradients:
    """ℓ = −p t log σ(x) − (1 − t) log(1 − σ(x)),  x = self, t = target            dℓ/dx = σ(x) − t  for p = 1

    For any p = pos_weight dℓ/dx = (1 − t) σ(x) − p t σ(−x) and dℓ/dt = (p − 1) softplus(−x) − x.
    """
    g = weighted(g, self, weight, reduction)
    if pos_weight is None:
        return {"self": g * (torch.sigmoid(self) - target), "target": -g * self}
    slope = (1 - target) * torch.sigmoid(self) - pos_weight * target * torch.sigmoid(-self)
    return {"self": g * slope, "target": g * ((pos_weight - 1) * F.softplus(-self) - self)}


def _kl_bound(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int, log_target: bool) -> Gradients:
    g = per_term(g, self - target, reduction).abs()
    p, log_p = (target.exp(), target) if log_target else (target.abs(), target.log())
    slope = log_p.abs() + 1 + self.abs()
    return {"self": g * p, "target": g * (p * slope if log_target else slope)}


def _kl_domain(target: Tensor, log_target: bool) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool) if log_target else target > 0


@termwise(aten.kl_div.default, abs_bound=_kl_bound, domain=_kl_domain)
def kl_div(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int, log_target: bool) -> Gradients:
    """ℓ = t (log t − x),  x = self, a log probability            dℓ/dx = −t            dℓ/dt = log t + 1 − x

    With log_target the target is τ = log t: dℓ/dτ = t (τ + 1 − x).
    """
    g = per_term(g, self - target, reduction)
    if log_target:
        return {"self": -g * target.exp(), "target": g * target.exp() * (target + 1 - self)}
    return {"self": -g * target, "target": g * (target.log() + 1 - self)}


def _poisson_frozen(
    at: At, input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Tensor:
    terms = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        terms = terms + torch.where(at["target"] > 1, stirling, 0)
    return reduced(terms, reduction)


def _poisson_bound(
    g: Tensor, y: Tensor, input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Gradients:
    g = per_term(g, input - target, reduction).abs()
    slope = input.exp() + target.abs() if log_input else 1 + target.abs() / (input + eps).abs()
    of_target = (input if log_input else (input + eps).log()).abs()
    if full:
        of_target = of_target + torch.where(target > 1, target.log().abs() + 0.5 / target, 0)
    return {"input": g * slope, "target": g * of_target}


def _poisson_domain(input: Tensor, log_input: bool, eps: float) -> Tensor:
    return torch.ones_like(input, dtype=torch.bool) if log_input else input + eps > 0


@termwise(aten.poisson_nll_loss.default, frozen=_poisson_frozen, abs_bound=_poisson_bound, domain=_poisson_domain)
def poisson_nll_loss(
    g: Tensor, y: Tensor, input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int
) -> Gradients:
    """ℓ = eˣ − t x,  x = input the log of the rate            dℓ/dx = eˣ − t            dℓ/dt = −x

    Where x is the rate itself: ℓ = x − t log(x + ε), dℓ/dx = 1 − t/(x + ε), dℓ/dt = −log(x + ε).
    `full` adds Stirling's t log t − t + ½ log 2πt for t > 1, whose slope is log t + 1/2t.
    """
    g = per_term(g, input - target, reduction)
    slope = input.exp() - target if log_input else 1 - target / (input + eps)
    of_target = -input if log_input else -(input + eps).log()
    if full:
        of_target = of_target + torch.where(target > 1, target.log() + 0.5 / target, 0)
    return {"input": g * slope, "target": g * of_target}


# --- margins ----------------------------------------------------------------------------------------------------------


@termwise(aten.soft_margin_loss.default, nondiff=("target",))
def soft_margin_loss(g: Tensor, y: Tensor, self: Tensor, target: Tensor, reduction: int) -> Gradients:
    """ℓ = log(1 + exp(−t x)),  x = self, t = target = ±1            dℓ/dx = −t σ(−t x)"""
    return {"self": per_term(g, self, reduction) * -target * torch.sigmoid(-target * self)}


def _hinge_frozen(at: At, self: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    inside = (at["self"] <= margin) & (target != 1)
    return reduced(torch.where(target != -1, self, 0) + torch.where(inside, margin - self, 0), reduction)


def _hinge_kink(self: Tensor, target: Tensor, margin: float) -> Tensor:
    return (self == margin) & (target != 1)


@termwise(aten.hinge_embedding_loss.default, nondiff=("target",), kink=_hinge_kink, frozen=_hinge_frozen)
def hinge_embedding_loss(
    g: Tensor, y: Tensor, self: Tensor, target: Tensor, margin: float, reduction: int
) -> Gradients:
    """ℓ = x if t = 1, max(0, margin − x) if t = −1,  x = self            dℓ/dx = 1 or −[x ≤ margin]"""
    near, far = (target != -1).to(self.dtype), (target != 1) & (self <= margin)
    return {"self": per_term(g, near, reduction) * (near - far.to(self.dtype))}


def _ranking_kink(input1: Tensor, input2: Tensor, target: Tensor, margin: float) -> Tensor:
    return margin - target * (input1 - input2) == 0


def _ranking_frozen(at: At, input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    wrong = margin - at["target"] * (at["input1"] - at["input2"]) >= 0
    return reduced(torch.where(wrong, margin - target * (input1 - input2), 0), reduction)


@termwise(aten.margin_ranking_loss.default, kink=_ranking_kink, frozen=_ranking_frozen)
def margin_ranking_loss(
    g: Tensor, y: Tensor, input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int
) -> Gradients:
    """ℓ = max(0, margin − t (x₁ − x₂))            dℓ/dx₁ = −t [wrong] = −dℓ/dx₂            dℓ/dt = (x₂ − x₁) [wrong]"""
    ahead = input1 - input2
    wrong = margin - target * ahead >= 0
    slope = torch.where(wrong, per_term(g, wrong, reduction), 0)
    return {"input1": -slope * target, "input2": slope * target, "target": -slope * ahead}
