"""The transposes of the few linear ops that lie between a weight and a waist, written with forward ops.

If z = A(w) is linear, then dL/dw = Aᵀ dL/dz, exactly. Aᵀ is no derivative of anything: it follows from A alone, and
`waist` tests it by <A e, g> = <e, Aᵀ g>. With `absolute` the constants in A count by their absolute values, which turns
a bar on dL/dz into one on dL/dw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, value_of
from chainrule.compare.linear_region import LinearStep, moving_arguments
from chainrule.compare.written_out import attention
from chainrule.graph import Ref, Value

aten = torch.ops.aten
# (g, the op's arguments, name of the argument that moves) -> its share, in the argument's shape or one that sums to it
Transposed = Callable[[Tensor, Mapping[str, Any], str], Tensor]


def transposed(step: LinearStep, g: Tensor, base: Mapping[str, Value], *, absolute: bool = False) -> dict[Ref, Tensor]:
    """Aᵀ g for each moving argument of one linear step; g belongs to its only output."""
    arguments = resolve(step.node, base)
    if absolute:
        arguments = {name: _absolute(value) for name, value in arguments.items()}
    function = TRANSPOSED[step.node.op]
    shares: dict[Ref, Tensor] = {}
    for name in sorted(moving_arguments(step.node, frozenset(step.moving))):
        ref = step.node.arguments[name]
        share = function(g, arguments, name)
        share = (share.abs() if absolute else share).sum_to_size(value_of(ref, base).shape)
        shares[ref] = shares[ref] + share if ref in shares else share
    return shares


def can_transpose(step: LinearStep) -> bool:
    """Whether `transposed` knows the op, with single tensors for arguments."""
    names = moving_arguments(step.node, frozenset(step.moving))
    return step.node.op in TRANSPOSED and all(isinstance(step.node.arguments[name], Ref) for name in names)


def _absolute(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.abs()
    return abs(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _linear(g: Tensor, a: Mapping[str, Tensor], name: str) -> Tensor:
    if name == "bias":
        return g
    if name == "input":
        return g @ a["weight"]
    x: Tensor = a["input"]
    return g.flatten(0, -2).mT @ x.flatten(0, -2)


def _product(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    x: Tensor = a["self"]
    y: Tensor = a["mat2"] if "mat2" in a else a["other"]
    if name == "self":
        return g @ y.mT
    return x.flatten(0, -2).mT @ g.flatten(0, -2) if y.dim() == 2 else x.mT @ g


def _add(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    return g * a["alpha"] if name == "other" else g


def _sub(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    return -g * a["alpha"] if name == "other" else g


def _mul(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    factor: Tensor | float = a["self"] if name == "other" else a["other"]
    return g * factor


def _div(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001  only the numerator is linear
    denominator: Tensor | float = a["other"]
    return g / denominator


def _reshape(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    return g.reshape(a[name].shape)


def _transpose(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001
    return g.transpose(a["dim0"], a["dim1"])


def _permute(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001
    order = [d % g.dim() for d in a["dims"]]
    return g.permute([order.index(d) for d in range(g.dim())])


def _flip(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001
    return g.mT if g.dim() == 2 else g


def _same(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001
    return g


def _attention(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:  # noqa: ARG001
    """y = P v, so Pᵀ g; P comes out of the forward op itself, applied to the identity."""
    length = a["value"].shape[-2]
    identity = torch.eye(length, dtype=g.dtype, device=g.device).expand(*a["value"].shape[:-2], length, length)
    share = attention(**{**a, "value": identity}).mT @ g
    if a["enable_gqa"]:
        share = share.unflatten(-3, (a["value"].shape[-3], -1)).sum(dim=-3)  # type: ignore[no-untyped-call]
    return share


def _mean(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    shape, dims = a[name].shape, a.get("dim")
    count = math.prod(shape[d] for d in (dims or range(len(shape))))
    return _sum(g / count, a, name)


def _sum(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    dims = a.get("dim")
    if dims and not a["keepdim"]:
        for d in sorted(d % a[name].dim() for d in dims):
            g = g.unsqueeze(d)
    return g.expand(a[name].shape)


def _select(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    return torch.zeros_like(a[name]).select_scatter(g, a["dim"], a["index"])


def _slice(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    return torch.zeros_like(a[name]).slice_scatter(g, a["dim"], a["start"], a["end"], a["step"])


def _look_up(g: Tensor, a: Mapping[str, Any], name: str) -> Tensor:
    rows = g.flatten(0, -2).masked_fill((a["indices"] == a["padding_idx"]).view(-1, 1), 0)
    return torch.zeros_like(a[name]).index_add(0, a["indices"].flatten(), rows)


TRANSPOSED: Mapping[Any, Transposed] = {
    aten.linear.default: _linear,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.matmul.default: _product,
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.flatten.using_ints: _reshape,
    aten.unsqueeze.default: _reshape,
    aten.squeeze.dim: _reshape,
    aten.squeeze.dims: _reshape,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.t.default: _flip,
    aten.clone.default: _same,
    aten.alias.default: _same,
    aten.contiguous.default: _same,
    aten.expand.default: _same,
    aten.scaled_dot_product_attention.default: _attention,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.embedding.default: _look_up,
}
