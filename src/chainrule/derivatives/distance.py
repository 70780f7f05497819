"""Distances and angles between vectors, and weight normalisation, which sets a vector's length.

The vectors are made of the entries along `dim`, or along the last dimension. `d` is the difference of two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from chainrule.derivatives.norm import norm_slope
from chainrule.derivatives.rule import F, Rules, call_by_name

aten = torch.ops.aten
rules = Rules()
MEAN, SUM = 1, 2
At = Mapping[str, Any]
Tangents = Mapping[str, Tensor]


def _of_pairs(*ops: OpOverload, **declared: Any) -> Callable[[F], F]:
    """Register a vjp of y = f(a, b), one number per pair of vectors: tangent and bound follow from its slopes at g = 1."""

    def register(function: F) -> F:
        def jvp(y: Tensor, t: Tangents, **arguments: Any) -> Tensor:
            slopes = call_by_name(function, arguments, torch.ones_like(y), y)
            terms = torch.stack(torch.broadcast_tensors(*(slopes[name] * t[name] for name in t))).sum(0)  # type: ignore[no-untyped-call]
            return (
                torch.sum(terms, arguments.get("dim", -1), arguments.get("keepdim", False)) if y.dim() else terms.sum()
            )

        def abs_bound(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Tensor]:
            return {name: part.abs() for name, part in call_by_name(function, arguments, g, y).items()}

        return rules.vjp(*ops, **{"jvp": jvp, "abs_bound": abs_bound, **declared})(function)

    return register


# --- angles -----------------------------------------------------------------------------------------------------------


def _length(x: Tensor, dim: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return length


def _angle_bound(g: Tensor, y: Tensor, x1: Tensor, x2: Tensor, dim: int, eps: float) -> Mapping[str, Tensor]:
    """Both terms with a plus."""
    a, b, size, less = x1.abs(), x2.abs(), g.abs(), -y.abs()
    return {"x1": _turn(size, less, a, b, dim, eps), "x2": _turn(size, less, b, a, dim, eps)}


def _turn(g: Tensor, y: Tensor, x: Tensor, other: Tensor, dim: int, eps: float) -> Tensor:
    """g · ∂cos(x, other)/∂x; a length below eps counts as eps, and does not move. PyTorch broadcasts first."""
    x, other = aten.broadcast_tensors((x, other))
    length, other_length = _length(x, dim), _length(other, dim)
    along = torch.where(length > eps, y.unsqueeze(dim) * x / length.clamp(min=eps), 0)
    return torch.mul(g.unsqueeze(dim), (other / other_length.clamp(min=eps) - along) / length.clamp(min=eps))


@_of_pairs(aten.cosine_similarity.default, abs_bound=_angle_bound)
def cosine_similarity(g: Tensor, y: Tensor, x1: Tensor, x2: Tensor, dim: int, eps: float) -> Mapping[str, Tensor]:
    """y = a·b / (‖a‖ ‖b‖)          dL/da = g (b/‖b‖ − y a/‖a‖) / ‖a‖       dL/db the same, exchanged"""
    return {"x1": _turn(g, y, x1, x2, dim, eps), "x2": _turn(g, y, x2, x1, dim, eps)}


# --- distances --------------------------------------------------------------------------------------------------------


def _slope(distance: Tensor, difference: Tensor, p: float) -> Tensor:
    """∂‖d‖_p/∂d, the distance with the vectors' dimension kept."""
    return norm_slope(distance, difference, p, (difference.dim() - 1,))


@_of_pairs(aten.pairwise_distance.default)
def pairwise_distance(
    g: Tensor, y: Tensor, x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool
) -> Mapping[str, Tensor]:
    """y = ‖a − b + ε‖_p            dL/da = g ∂‖d‖_p/∂d     dL/db = −dL/da"""
    kept, g_kept = (y, g) if keepdim else (y.unsqueeze(-1), g.unsqueeze(-1))
    by_difference = g_kept * _slope(kept, x1 - x2 + eps, p)
    return {"x1": by_difference, "x2": -by_difference}


@_of_pairs(aten.dist.default)
def dist(g: Tensor, y: Tensor, self: Tensor, other: Tensor, p: float) -> Mapping[str, Tensor]:
    """y = ‖a − b‖_p                dL/da = g ∂‖d‖_p/∂d     dL/db = −dL/da"""
    difference = self - other
    by_difference = g * norm_slope(y, difference, p, tuple(range(difference.dim())))
    return {"self": by_difference, "other": -by_difference}


def _all_pairs(x1: Tensor, x2: Tensor) -> Tensor:
    """a_i − b_j, of shape (.., i, j, D)."""
    return x1.unsqueeze(-2) - x2.unsqueeze(-3)


def _cdist_jvp(y: Tensor, t: Tangents, x1: Tensor, x2: Tensor, p: float) -> Tensor:
    moved = _all_pairs(t.get("x1", torch.zeros_like(x1)), t.get("x2", torch.zeros_like(x2)))
    return (_slope(y.unsqueeze(-1), _all_pairs(x1, x2), p) * moved).sum(-1)


def _cdist_bound(g: Tensor, y: Tensor, x1: Tensor, x2: Tensor, p: float) -> Mapping[str, Tensor]:
    by_difference = (g.unsqueeze(-1) * _slope(y.unsqueeze(-1), _all_pairs(x1, x2), p)).abs()
    return {"x1": by_difference.sum(-2), "x2": by_difference.sum(-3)}


@rules.vjp(aten.cdist.default, jvp=_cdist_jvp, abs_bound=_cdist_bound)
def cdist(g: Tensor, y: Tensor, x1: Tensor, x2: Tensor, p: float) -> Mapping[str, Tensor]:
    """y_ij = ‖a_i − b_j‖_p         dL/da_i = Σ_j g_ij ∂‖d_ij‖_p/∂d_ij      dL/db_j = −Σ_i of the same"""
    by_difference = g.unsqueeze(-1) * _slope(y.unsqueeze(-1), _all_pairs(x1, x2), p)
    return {"x1": by_difference.sum(-2), "x2": -by_difference.sum(-3)}


# --- the triplet loss -------------------------------------------------------------------------------------------------


def _hinge(at: At) -> tuple[Tensor, Tensor]:
    """(whether a triplet has a loss, how much of its far distance is to the anchor rather than to the positive)."""
    near = torch.pairwise_distance(at["anchor"], at["positive"], at["p"], at["eps"])
    far = torch.pairwise_distance(at["anchor"], at["negative"], at["p"], at["eps"])
    if not at["swap"]:
        return near + at["margin"] >= far, torch.ones_like(far)
    other = torch.pairwise_distance(at["positive"], at["negative"], at["p"], at["eps"])
    return near + at["margin"] >= torch.minimum(far, other), (far < other) + 0.5 * (far == other).to(far.dtype)


def _reduced(losses: Tensor, reduction: int) -> Tensor:
    return losses.mean() if reduction == MEAN else losses.sum() if reduction == SUM else losses


def _triplet_frozen(at: At, **arguments: Any) -> Tensor:
    anchor, positive, negative = arguments["anchor"], arguments["positive"], arguments["negative"]
    p, eps, (active, share) = arguments["p"], arguments["eps"], _hinge(at)
    far = share * torch.pairwise_distance(anchor, negative, p, eps)
    far = far + (1 - share) * torch.pairwise_distance(positive, negative, p, eps)
    near = torch.pairwise_distance(anchor, positive, p, eps)
    return _reduced(torch.where(active, arguments["margin"] + near - far, 0), arguments["reduction"])


def _sides(g: Tensor, arguments: At) -> Mapping[str, tuple[Tensor, Tensor]]:
    """g · the derivative of each triplet's loss by its three points: each moves two of the three distances."""
    active, share = _hinge(arguments)
    weight = torch.where(active, g, 0)
    parts = {}
    for first, second, of in (
        ("anchor", "positive", weight),
        ("anchor", "negative", -weight * share),
        ("positive", "negative", -weight * (1 - share)),
    ):
        difference = arguments[first] - arguments[second] + arguments["eps"]
        length = torch.linalg.vector_norm(difference, arguments["p"], -1, keepdim=True)
        parts[first, second] = of.unsqueeze(-1) * _slope(length, difference, arguments["p"])
    pull, push, side = parts.values()
    return {"anchor": (pull, push), "positive": (-pull, side), "negative": (-push, -side)}


def _each(g: Tensor, arguments: At) -> Tensor:
    """dL/dloss of each triplet, which may be one number for all."""
    if arguments["reduction"] != MEAN:
        return g
    return g / _hinge(arguments)[0].numel()


def _triplet_jvp(y: Tensor, t: Tangents, **arguments: Any) -> Tensor:
    slopes = _sides(torch.ones_like(arguments["anchor"].select(-1, 0)), arguments)
    moved = sum((sum(slopes[name]) * t[name]).sum(-1) for name in t)
    return _reduced(torch.as_tensor(moved), arguments["reduction"])


def _triplet_bound(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Tensor]:
    sides = _sides(_each(g, arguments), arguments)
    return {name: one.abs() + two.abs() for name, (one, two) in sides.items()}


@rules.vjp(aten.triplet_margin_loss.default, frozen=_triplet_frozen, jvp=_triplet_jvp, abs_bound=_triplet_bound)
def triplet_margin_loss(g: Tensor, y: Tensor, **arguments: Any) -> Mapping[str, Tensor]:
    """y = max(‖a − p‖ − ‖a − n‖ + m, 0)    dL/da = g (∂‖a − p‖/∂a − ∂‖a − n‖/∂a) [y > 0], dL/dp and dL/dn alike"""
    sides = _sides(_each(g, arguments), arguments)
    return {name: one + two for name, (one, two) in sides.items()}


# --- weight normalisation ---------------------------------------------------------------------------------------------


def _norm_except(v: Tensor, dim: int) -> Tensor:
    dims = [d for d in range(v.dim()) if d != dim]
    norm: Tensor = torch.linalg.vector_norm(v, dim=dims, keepdim=True)
    return norm


def _weight_norm_jvp(y: Tensor, t: Tangents, v: Tensor, g_LENGTH: Tensor, dim: int) -> Tensor:
    norm, zero = _norm_except(v, dim), torch.zeros_like(v)
    moved, dims = t.get("v", zero), [d for d in range(v.dim()) if d != dim]
    unit = v / norm
    turned = moved - unit * (unit * moved).sum(dims, keepdim=True)
    return g_LENGTH / norm * turned + unit * t.get("g", torch.zeros_like(g_LENGTH))


def _weight_norm_bound(g: Tensor, y: Tensor, v: Tensor, g_LENGTH: Tensor, dim: int) -> Mapping[str, Tensor]:
    norm, dims = _norm_except(v, dim), [d for d in range(v.dim()) if d != dim]
    unit = (v / norm).abs()
    along = (g.abs() * unit).sum(dims, keepdim=True)
    return {"v": (g_LENGTH / norm).abs() * (g.abs() + unit * along), "g": along}


@rules.vjp(aten._weight_norm.default, jvp=_weight_norm_jvp, abs_bound=_weight_norm_bound)
def weight_norm(g: Tensor, y: Tensor, v: Tensor, g_LENGTH: Tensor, dim: int) -> Mapping[str, Tensor]:
    """y = ℓ u, u = v / ‖v‖         dL/dv = ℓ (g − u (g·u)) / ‖v‖           dL/dℓ = g·u"""
    norm, dims = _norm_except(v, dim), [d for d in range(v.dim()) if d != dim]
    unit = v / norm
    along = (g * unit).sum(dims, keepdim=True)
    return {"v": g_LENGTH / norm * (g - unit * along), "g": along}
