"""Layer norm and the matrix product after it along a line, without a product for every step length.

Along x + t e the centred row is x̃ + t ẽ, so with s(t) = 1/√(var(t) + eps), a number per row,

    W LN(x + t e) + b = s(t) · (W(γ x̃) + t W(γ ẽ)) + (W β + b),        var(t) = v₀ + 2 t v₁ + t² v₂

where v₀ = mean x̃², v₁ = mean x̃ẽ, v₂ = mean ẽ². The products W(γ x̃) and W(γ ẽ) are made once, for all t; if the K lines
are combinations of C < K basis directions, for C rows only. It is the formula itself, rearranged; nothing is
approximated.
Dimension key: K lines, S offsets, C basis tangents, D normalised features, M outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import value_of
from chainrule.compare.rows import Rows
from chainrule.graph import Node, Ref, Value

aten = torch.ops.aten
NARROWEST = 64  # features; below, elementwise work outweighs the product that is saved


@dataclass(frozen=True, eq=False)
class Pencil:
    """A layer norm over the last dimension and the linear ops that use it."""

    norm: Node
    users: tuple[Node, ...]
    base: Mapping[str, Value]

    @property
    def input(self) -> Ref:
        """What the layer norm normalises."""
        return self.norm.arguments["input"]  # type: ignore[no-any-return]

    @property
    def covers(self) -> frozenset[str]:
        """Names of the nodes that need not be run any more."""
        return frozenset({self.norm.name, *(user.name for user in self.users)})

    def prepare(self, tangent_C: Tensor, rows: Rows | None = None) -> PreparedPencil:
        """The products with the basis tangents (C, ..., D), which hold `rows` alone if these are given."""
        x = value_of(self.input, self.base)
        x = x if rows is None else rows.of(x)
        centred, moving = (part - part.mean(dim=-1, keepdim=True) for part in (x, tangent_C))
        gain, shift = (_constant(self.norm, name, self.base) for name in ("weight", "bias"))
        products = {}
        for user in self.users:
            weight, bias = (_constant(user, name, self.base) for name in ("weight", "bias"))
            assert weight is not None
            scaled = weight if gain is None else weight * gain
            constant = torch.zeros((), dtype=x.dtype) if bias is None else bias
            constant = constant if shift is None else constant + weight @ shift
            products[Ref(user.name)] = (centred @ scaled.mT, moving @ scaled.mT, constant)
        return PreparedPencil(centred, moving, self.norm.arguments["eps"], products)


@dataclass(frozen=True, eq=False)
class PreparedPencil:
    """x̃ (..., D), ẽ (C, ..., D), and for each linear op W(γ x̃), W(γ ẽ) and W β + b."""

    centred: Tensor
    moving: Tensor
    eps: float
    products: Mapping[Ref, tuple[Tensor, Tensor, Tensor]]

    def outputs(self, t_SK: Tensor, mix_KC: Tensor | None) -> dict[Ref, Tensor]:
        """The outputs of the linear ops at the offsets, (S K, ..., M)."""
        tangent_K = mixed(mix_KC, self.moving)
        t = t_SK.reshape(*t_SK.shape, *[1] * self.centred.dim())
        v0 = self.centred.square().mean(dim=-1, keepdim=True)
        v1 = (self.centred * tangent_K).mean(dim=-1, keepdim=True)
        v2 = tangent_K.square().mean(dim=-1, keepdim=True)
        scale = torch.rsqrt(v0 + self.eps + 2 * t * v1 + t * t * v2)
        return {
            ref: _line(scale, still, t, mixed(mix_KC, moving), constant).flatten(0, 1)
            for ref, (still, moving, constant) in self.products.items()
        }


def find_pencils(nodes: tuple[Node, ...], straight: frozenset[Ref], base: Mapping[str, Value]) -> tuple[Pencil, ...]:
    """The layer norms at the end of the linear region whose every use is a linear op with a weight that stays."""
    moving = {node.name for node in nodes} | {ref.name for ref in straight}
    found = []
    for node in nodes:
        if node.op == aten.layer_norm.default and _normalises_rows(node, straight, moving):
            users = tuple(user for user in nodes if any(ref.name == node.name for ref in user.refs()))
            if all(_is_product(user, node, moving) for user in users):
                found.append(Pencil(node, users, base))
    return tuple(found)


def _normalises_rows(node: Node, straight: frozenset[Ref], moving: set[str]) -> bool:
    shape = node.arguments["normalized_shape"]
    still = all(_stays(node.arguments[name], moving) for name in ("weight", "bias"))
    return node.arguments["input"] in straight and len(shape) == 1 and shape[0] >= NARROWEST and still


def _is_product(user: Node, norm: Node, moving: set[str]) -> bool:
    return (
        user.op == aten.linear.default
        and user.arguments["input"] == Ref(norm.name)
        and all(_stays(user.arguments[name], moving) for name in ("weight", "bias"))
    )


def _stays(argument: object, moving: set[str]) -> bool:
    return not isinstance(argument, Ref) or argument.name not in moving


def _constant(node: Node, name: str, base: Mapping[str, Value]) -> Tensor | None:
    argument = node.arguments[name]
    return value_of(argument, base) if isinstance(argument, Ref) else None


def mixed(mix_KC: Tensor | None, tangent_C: Tensor) -> Tensor:
    """Σ_c mix[k, c] tangent[c], shape (K, ...); without mix, the tangents themselves."""
    if mix_KC is None:
        return tangent_C
    return (mix_KC @ tangent_C.flatten(1)).view(mix_KC.shape[0], *tangent_C.shape[1:])


def _line(scale: Tensor, still: Tensor, t: Tensor, moving: Tensor, constant: Tensor) -> Tensor:
    """scale · (still + t · moving) + constant, with as few passes over memory as torch has."""
    return torch.addcmul(constant, scale, torch.addcmul(still, t, moving))
