"""One node for N perturbations at a time: values that move carry a leading dimension N, the others do not.

The ops that carry a transformer take a leading dimension as they are, once their dimension numbers are shifted
(`FORMS`); every other op goes through torch.vmap by itself, and one that vmap cannot do through a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve
from chainrule.compare.written_out import WRITTEN_OUT, attention
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.graph import Node, Ref, Value, refs_in

aten = torch.ops.aten
Arguments: TypeAlias = Mapping[str, Any]
# What computes a node in place of its op, for one perturbation, by the op's argument names: for complex numbers, say.
Forms: TypeAlias = Callable[[Node], Callable[..., Value] | None]


def run_batched(
    node: Node,
    values: Mapping[str, Value],
    many: frozenset[Ref],
    at: Mapping[str, Value] | None,
    forms: Forms | None = None,
) -> Value:
    """The node's output with a leading dimension N.

    many   the values that have a leading dimension N
    at     values of the base evaluation if branches are held there
    forms  what to compute in place of an op; None from it means the op, or its rule with the branch held
    """
    arguments = resolve(node, values)
    names = frozenset(name for name, value in node.arguments.items() if any(ref in many for ref in refs_in(value)))
    form = FORMS.get(node.op) if forms is None else None
    if form is not None and (output := form(arguments, names)) is not None:
        return output
    single = _single(node, at, forms)
    rule = RULES.get(node.op)
    if rule is not None and rule.local is not None and names == {"self"}:
        return single(**arguments)  # entry by entry, so a leading dimension changes nothing
    return _mapped(node, single, arguments, many)


def _single(node: Node, at: Mapping[str, Value] | None, forms: Forms | None) -> Callable[..., Value]:
    """What computes the node for one perturbation: another form of it, its rule with the branch held, or its op."""
    if forms is not None and (form := forms(node)) is not None:
        return form
    if (written := WRITTEN_OUT.get(node.op)) is not None:
        return written
    rule = RULES.get(node.op)
    if at is None or rule is None or rule.frozen is None:
        return node.op
    base = {**resolve(node, at), "y": at[node.name]}
    frozen = rule.frozen
    return lambda **arguments: call_by_name(frozen, arguments, base)


def _mapped(node: Node, single: Callable[..., Value], arguments: Arguments, many: frozenset[Ref]) -> Value:
    """`single` over the leading dimension of whatever has one, by torch.vmap or by a loop."""
    places = [(name, i) for name, value in node.arguments.items() for i, ref in _items(value) if ref in many]
    moving = [arguments[name] if i is None else arguments[name][i] for name, i in places]

    def one(*parts: Tensor) -> Value:
        filled = {name: list(value) if isinstance(value, list) else value for name, value in arguments.items()}
        for (name, i), part in zip(places, parts, strict=True):
            if i is None:
                filled[name] = part
            else:
                filled[name][i] = part
        output = single(**filled)
        return tuple(output) if isinstance(output, list) else output

    try:
        with no_vmap_fallback():
            return torch.vmap(one)(*moving)
    except RuntimeError:  # no batching rule, or the op looks at its data
        outputs = [one(*parts) for parts in zip(*moving, strict=True)]
    if isinstance(outputs[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))
    return torch.stack(outputs)


@contextmanager
def no_vmap_fallback() -> Iterator[None]:
    """Let torch.vmap raise RuntimeError for an op without a batching rule, rather than warn on stderr and loop itself."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)


def _items(argument: Any) -> list[tuple[int | None, Any]]:
    return list(enumerate(argument)) if isinstance(argument, tuple) else [(None, argument)]


# --- ops that take a leading dimension as they are; None where their arguments ask for more ---------------------------


def _linear(a: Arguments, many: frozenset[str]) -> Tensor | None:
    return torch.nn.functional.linear(a["input"], a["weight"], a["bias"]) if many == {"input"} else None


def _layer_norm(a: Arguments, many: frozenset[str]) -> Tensor | None:
    return aten.layer_norm.default(**a) if many == {"input"} else None


def _add(a: Arguments, many: frozenset[str]) -> Tensor | None:
    x, y = _aligned(a["self"], a["other"], many)
    return torch.add(x, y, alpha=a["alpha"])


def _mul(a: Arguments, many: frozenset[str]) -> Tensor | None:
    x, y = _aligned(a["self"], a["other"], many)
    return x * y  # type: ignore[no-any-return]


def _aligned(x: Any, y: Any, many: frozenset[str]) -> tuple[Any, Any]:
    """Both operands of a broadcasting op, with ones after the leading N where the other has more dimensions."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return x, y
    rank = max(x.dim() - ("self" in many), y.dim() - ("other" in many))
    return _padded(x, rank) if "self" in many else x, _padded(y, rank) if "other" in many else y


def _padded(x: Tensor, rank: int) -> Tensor:
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.dim()), *x.shape[1:])


def _matmul(a: Arguments, many: frozenset[str]) -> Tensor | None:
    x, y = a["self"], a["other"]
    if min(x.dim() - ("self" in many), y.dim() - ("other" in many)) < 2:
        return None
    x, y = _aligned(x, y, many)
    return torch.matmul(x, y)


def _softmax(a: Arguments, many: frozenset[str]) -> Tensor:  # noqa: ARG001
    return torch.softmax(a["self"], _shifted(a["dim"]), a["dtype"])


def _masked_fill(a: Arguments, many: frozenset[str]) -> Tensor | None:
    x, mask = a["self"], a["mask"]
    return x.masked_fill(mask, a["value"]) if many == {"self"} and mask.dim() < x.dim() else None


def _clone(a: Arguments, many: frozenset[str]) -> Tensor:  # noqa: ARG001
    return a["self"]  # type: ignore[no-any-return]  # nothing is written in place here


def _view(a: Arguments, many: frozenset[str]) -> Tensor:  # noqa: ARG001
    return a["self"].reshape(a["self"].shape[0], *a["size"])  # type: ignore[no-any-return]


def _transpose(a: Arguments, many: frozenset[str]) -> Tensor:  # noqa: ARG001
    return a["self"].transpose(_shifted(a["dim0"]), _shifted(a["dim1"]))  # type: ignore[no-any-return]


def _permute(a: Arguments, many: frozenset[str]) -> Tensor:  # noqa: ARG001
    return a["self"].permute(0, *(_shifted(d, a["self"].dim() - 1) for d in a["dims"]))  # type: ignore[no-any-return]


def _shifted(dim: int, rank: int = 0) -> int:
    """The number of a dimension once there is one before it; counted from the end it stays, unless rank is given."""
    return dim + rank + 1 if dim < 0 and rank else dim + 1 if dim >= 0 else dim


def _attention(a: Arguments, many: frozenset[str]) -> Tensor | None:
    if "attn_mask" in many:
        return None
    count = next(a[name].shape[0] for name in ("query", "key", "value") if name in many)
    parts = {n: a[n] if n in many else a[n].expand(count, *a[n].shape) for n in ("query", "key", "value")}
    return attention(**{**a, **parts})


FORMS: Mapping[Any, Callable[[Arguments, frozenset[str]], Tensor | None]] = {
    aten.linear.default: _linear,
    aten.layer_norm.default: _layer_norm,
    aten.add.Tensor: _add,
    aten.mul.Tensor: _mul,
    aten.matmul.default: _matmul,
    aten.softmax.int: _softmax,
    aten.masked_fill.Scalar: _masked_fill,
    aten.clone.default: _clone,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.scaled_dot_product_attention.default: _attention,
}
