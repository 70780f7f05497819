"""One node for N perturbations that move only some rows of its arguments: what does not move is not computed.

The other rows keep their base values, bit for bit. A moving value is held as the rows that move alone, with a leading
dimension N. An op that is not listed in `NARROW` gets its arguments in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, value_of
from chainrule.compare.batched import FORMS, run_batched
from chainrule.compare.rows import Rows, rows_that_differ, widen
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.graph import Node, Ref, Spec, Value, refs_in

aten = torch.ops.aten

# The rows of the output that move, and which they are; None where the op has to be done in full.
Narrow: TypeAlias = "Callable[[Call], tuple[Tensor, Rows] | None]"


@dataclass(frozen=True)
class Call:
    """A node with its arguments: those in `rows` are narrowed and have a leading N, the others are base values."""

    node: Node
    arguments: Mapping[str, Any]
    rows: Mapping[str, Rows]
    base: Mapping[str, Value]
    at: Mapping[str, Value] | None

    def still(self, name: str) -> Any:
        """The argument's base value."""
        argument = self.node.arguments[name]
        return value_of(argument, self.base) if isinstance(argument, Ref) else argument

    def moved(self, name: str, rows: Rows) -> Tensor:
        """A moving argument at more rows than it moves in: the rest is filled with base values."""
        return widen(self.arguments[name], self.rows[name], rows, self.still(name))


def run_rows(
    node: Node,
    values: Mapping[str, Value],
    many: Mapping[Ref, Rows | None],
    base: Mapping[str, Value],
    at: Mapping[str, Value] | None,
) -> tuple[Value, Rows | None]:
    """The node's output and which of its rows it holds, None for all.

    many  the values that have a leading N, with the rows that they hold
    """
    names = {name: ref for name, ref in node.arguments.items() if isinstance(ref, Ref) and ref in many}
    rows = {name: many[ref] for name, ref in names.items()}
    narrowed = {name: part for name, part in rows.items() if part is not None}
    handler = _handler(node)
    listed = any(ref in many for name in node.arguments.keys() - names.keys() for ref in refs_in(node.arguments[name]))
    if handler is not None and narrowed and len(narrowed) == len(names) and not listed:
        found = handler(Call(node, resolve(node, values), narrowed, base, at))
        if found is not None:
            return found
    full = dict(values)
    for ref in {ref for ref in node.refs() if many.get(ref) is not None}:
        held = many[ref]
        assert held is not None
        still = value_of(ref, base)
        full[ref.name] = widen(value_of(ref, values), held, Rows(held.dim, 0, still.shape[held.dim]), still)
    return run_batched(node, full, frozenset(many), at), None


def _handler(node: Node) -> Narrow | None:
    rule = RULES.get(node.op)
    return NARROW.get(node.op) or (_entry_by_entry if rule is not None and rule.local is not None else None)


# --- the ops; each returns None where the rows do not pass through it -------------------------------------------------


def _entry_by_entry(c: Call) -> tuple[Tensor, Rows] | None:
    rule, rows = RULES[c.node.op], c.rows.get("self")
    if rows is None or len(c.rows) > 1 or any(isinstance(v, Tensor) for n, v in c.arguments.items() if n != "self"):
        return None
    if c.at is None or rule.frozen is None:
        return c.node.op(**c.arguments), rows
    base = {**resolve(c.node, c.at), "y": rows.of(c.at[c.node.name])}
    base["self"] = rows.of(base["self"])
    return call_by_name(rule.frozen, c.arguments, base), rows


def _first_argument(c: Call) -> tuple[Tensor, Rows] | None:
    """linear and layer norm, where only the input moves and the rows are not of a dimension that they mix."""
    rows = c.rows.get("input")
    mixed = len(c.arguments.get("normalized_shape", (0,)))
    if rows is None or len(c.rows) > 1 or rows.dim >= c.still("input").dim() - mixed:
        return None
    output = FORMS[c.node.op](c.arguments, frozenset({"input"}))
    return None if output is None else (output, rows)


def _pairwise(c: Call) -> tuple[Tensor, Rows] | None:
    """add, sub, mul, div: the operands at the rows in which either moves."""
    assert isinstance(c.node.spec, Spec)
    rank = len(c.node.spec.shape)
    moving = {name: rows.at(rows.dim + rank - c.still(name).dim()) for name, rows in c.rows.items()}
    dims = {rows.dim for rows in moving.values()}
    if len(dims) > 1 or any(c.still(n).shape[r.dim] != c.node.spec.shape[moving[n].dim] for n, r in c.rows.items()):
        return None
    union = Rows(dims.pop(), min(r.start for r in moving.values()), max(r.stop for r in moving.values()))
    operands = {name: _operand(c, name, union, rank) for name in ("self", "other")}
    output = c.node.op(**{**c.arguments, **operands})
    return _counted_again(c, output, union) if _is_mask(c) else (output, union)


def _is_mask(c: Call) -> bool:
    """Something that stays and holds -inf is added."""
    still = [c.arguments[name] for name in {"self", "other"} - c.rows.keys()]
    return c.node.op is aten.add.Tensor and any(isinstance(x, Tensor) and bool(x.isneginf().any()) for x in still)


def _operand(c: Call, name: str, union: Rows, rank: int) -> Any:
    still = c.still(name)
    if not isinstance(still, Tensor):
        return still
    dim = union.dim - (rank - still.dim())
    if name in c.rows:
        part = c.moved(name, union.at(dim))
        return part.reshape(part.shape[0], *[1] * (rank - still.dim()), *part.shape[1:])
    return union.at(dim).of(still) if dim >= 0 and still.shape[dim] > 1 else still


def _view(c: Call) -> tuple[Tensor, Rows] | None:
    """A view in which the dimension of the rows stays whole."""
    assert isinstance(c.node.spec, Spec)
    rows, old, new = c.rows["self"], c.still("self").shape, c.node.spec.shape
    for dim, size in enumerate(new):
        if size == old[rows.dim] and math.prod(new[:dim]) == math.prod(old[: rows.dim]):
            x = c.arguments["self"]
            return x.reshape(x.shape[0], *new[:dim], rows.stop - rows.start, *new[dim + 1 :]), rows.at(dim)
    return None


def _transpose(c: Call) -> tuple[Tensor, Rows] | None:
    rows, rank = c.rows["self"], c.still("self").dim()
    a, b = c.arguments["dim0"] % rank, c.arguments["dim1"] % rank
    moved_to = b if rows.dim == a else a if rows.dim == b else rows.dim
    return c.arguments["self"].transpose(a + 1, b + 1), rows.at(moved_to)


def _permute(c: Call) -> tuple[Tensor, Rows] | None:
    order = [d % c.still("self").dim() for d in c.arguments["dims"]]
    x = c.arguments["self"].permute(0, *(d + 1 for d in order))
    return x, c.rows["self"].at(order.index(c.rows["self"].dim))


def _clone(c: Call) -> tuple[Tensor, Rows] | None:
    return c.arguments["self"], c.rows["self"]


def _softmax(c: Call) -> tuple[Tensor, Rows] | None:
    rows, dim = c.rows["self"], c.arguments["dim"] % c.still("self").dim()
    return None if rows.dim == dim else (torch.softmax(c.arguments["self"], dim + 1, c.arguments["dtype"]), rows)


def _matmul(c: Call) -> tuple[Tensor, Rows] | None:
    """x @ y, where rows of x move, or rows of y that x mixes into some rows of the output, or both."""
    x, y = c.still("self"), c.still("other")
    if (
        x.dim() != y.dim()
        or x.shape[:-2] != y.shape[:-2]
        or c.rows.get("self", Rows(x.dim() - 2, 0, 0)).dim != x.dim() - 2
    ):
        return None
    places = torch.zeros(x.shape[-2], dtype=torch.bool)
    if "self" in c.rows:
        places[c.rows["self"].start : c.rows["self"].stop] = True
    if "other" in c.rows:
        inner = c.rows["other"]
        if inner.dim != y.dim() - 2:
            return None
        touched = (inner.at(x.dim() - 1).of(x) != 0).any(dim=-1)
        places |= touched.reshape(-1, x.shape[-2]).any(dim=0)
    if not bool(places.any()):
        return None
    found = places.nonzero().view(-1)
    rows = Rows(x.dim() - 2, int(found[0]), int(found[-1]) + 1)
    left = c.moved("self", rows) if "self" in c.rows else rows.of(x)
    right = c.moved("other", Rows(y.dim() - 2, 0, y.shape[-2])) if "other" in c.rows else y
    return left @ right, rows


def _scores(c: Call) -> tuple[Tensor, Rows] | None:
    """q @ kᵀ where row t of q and column t of kᵀ move: those are computed anew in a copy of the base value, in full."""
    x, y = c.still("self"), c.still("other")
    if set(c.rows) != {"self", "other"} or c.rows["other"].dim != y.dim() - 1 or c.rows["self"].dim != x.dim() - 2:
        return None
    row, column = c.rows["self"], c.rows["other"]
    still = c.base[c.node.name]
    output = still.expand(c.arguments["self"].shape[0], *still.shape).clone()
    queries, keys = c.moved("self", row.at(row.dim)), c.moved("other", Rows(column.dim, 0, y.shape[-1]))
    output.narrow(-2, row.start, row.stop - row.start).copy_(queries @ keys)
    whole = c.moved("self", Rows(row.dim, 0, x.shape[-2]))
    output.narrow(-1, column.start, column.stop - column.start).copy_(whole @ c.arguments["other"])
    return output, Rows(x.dim() - 2, 0, x.shape[-2])


def _product(c: Call) -> tuple[Tensor, Rows] | None:
    return _scores(c) or _matmul(c)


def _masked_fill(c: Call) -> tuple[Tensor, Rows] | None:
    rows, mask, rank = c.rows["self"], c.arguments["mask"], c.still("self").dim()
    if len(c.rows) > 1:
        return None
    dim = rows.dim - (rank - mask.dim())
    part = rows.at(dim).of(mask) if dim >= 0 and mask.shape[dim] > 1 else mask
    return _counted_again(c, c.arguments["self"].masked_fill(part, c.arguments["value"]), rows)


def _counted_again(c: Call, output: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
    """After a mask, which may put back to the base what moved, the rows are counted again."""
    rank = output.dim() - 1
    moved = rows_that_differ(output, rows.of(c.base[c.node.name])) if rows.dim == rank - 2 else None
    if moved is None:
        return output, rows
    return moved.at(moved.dim + 1).of(output), Rows(rows.dim, rows.start + moved.start, rows.start + moved.stop)


def _attention(c: Call) -> tuple[Tensor, Rows] | None:
    """Causal attention: what moves at token t moves the outputs from t on, and those alone are computed."""
    a = c.arguments
    rank = c.still("query").dim()
    if (
        not a["is_causal"]
        or a["attn_mask"] is not None
        or a["enable_gqa"]
        or any(r.dim != rank - 2 for r in c.rows.values())
    ):
        return None
    length = c.still("key").shape[-2]
    if length != c.still("query").shape[-2]:
        return None
    last = max(r.stop for r in c.rows.values()) if set(c.rows) == {"query"} else length
    rows = Rows(rank - 2, min(r.start for r in c.rows.values()), last)
    whole = Rows(rank - 2, 0, length)
    query = c.moved("query", rows) if "query" in c.rows else rows.of(c.still("query"))
    key = c.moved("key", whole) if "key" in c.rows else c.still("key")
    value = c.moved("value", whole) if "value" in c.rows else c.still("value")
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if a["scale"] is None else a["scale"])
    future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)[rows.start : rows.stop]
    return scores.masked_fill(future, -math.inf).softmax(dim=-1) @ value, rows


NARROW: Mapping[Any, Narrow] = {
    aten.linear.default: _first_argument,
    aten.layer_norm.default: _first_argument,
    aten.add.Tensor: _pairwise,
    aten.sub.Tensor: _pairwise,
    aten.mul.Tensor: _pairwise,
    aten.div.Tensor: _pairwise,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.reshape.default: _view,
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.clone.default: _clone,
    aten.softmax.int: _softmax,
    aten.matmul.default: _product,
    aten.masked_fill.Scalar: _masked_fill,
    aten.scaled_dot_product_attention.default: _attention,
}
