"""The loss along single entries of a parameter, W + t E, with the structure that a single entry has.

Entry E_ij of a matrix that is used by one product y = x Wᵀ moves one column of y, by x[:, j]: a move of rank one, which
needs no product at all. And all entries of one row of W move the same column of y, each as a combination of the R rows
(tokens) of x, so that their way through the linear region is that of R basis moves. An entry of an embedding moves the
rows that look it up. Any other parameter is moved itself.
Dimension key: R rows of x, n columns of x, m columns of y, K lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import value_of
from chainrule.compare.lines import Lines, LossLines
from chainrule.graph import Graph, Node, Ref, Value, refs_in

aten = torch.ops.aten
# (argument that is the matrix, argument that it multiplies, whether entry [i, j] of it moves column i of the output)
PRODUCTS = {
    aten.linear.default: ("weight", "input", True),
    aten.mm.default: ("mat2", "self", False),
    aten.addmm.default: ("mat2", "mat1", False),
    aten.matmul.default: ("other", "self", False),
}


FEW_ROWS = 4  # so many times more lines in a chunk: measured, at 8 to 16 tokens


class EntryLines:
    """Lines along entries of one value of the graph, a parameter as a rule, given by their flat indices.

    start   where the lines begin: the value itself, or the output of the one product or look-up that uses it
    reason  what that saves, in words
    """

    def __init__(self, graph: Graph, ref: Ref, base: Mapping[str, Value], *, frozen: bool = True) -> None:
        self.ref, self.base = ref, base
        self.shape = tuple(value_of(ref, base).shape)
        self.user = only_user(graph, ref)
        self.is_product = self.user is not None and _is_product(self.user, ref, base)
        self.is_look_up = self.user is not None and _is_look_up(self.user, ref)
        structured = self.user is not None and (self.is_product or self.is_look_up)
        self.start = Ref(self.user.name) if self.user is not None and structured else ref
        self.lines = LossLines(graph, (self.start,), base, frozen=frozen)
        self.moves_few_rows = ref.name not in graph.leaves
        self.reason = self._reason()
        self._prepared: tuple[int, Lines] | None = None

    @property
    def widest(self) -> int:
        """Entries of the largest tensor that one line has to make; an entry of an activation moves few of its rows."""
        widest = max(self.lines.widest, int(value_of(self.start, self.base).numel()))
        return -(-widest // FEW_ROWS) if self.moves_few_rows else widest

    def runs(self, indices: Tensor) -> Iterator[tuple[Tensor, int | None]]:
        """Positions in `indices`, and the column of y that all of them move if they are more than that has rows."""
        if not self.is_product:
            if len(indices):
                yield torch.arange(len(indices)), None
            return
        columns = self.column(indices)
        order = torch.argsort(columns, stable=True)
        found, counts = torch.unique_consecutive(columns[order], return_counts=True)
        scattered = []
        for column, run in zip(found.tolist(), torch.split(order, counts.tolist()), strict=True):
            if len(run) > self.rows.shape[0]:
                yield run, column
            else:
                scattered.append(run)
        if scattered:
            yield torch.cat(scattered), None

    def chunk(self, indices: Tensor, column: int | None) -> tuple[Lines, Tensor | None]:
        """Prepared lines, and the mix of them that gives the lines along these entries; `column` as `runs` gives it."""
        if column is not None:
            return self._column_basis(column), self._feature(indices).mT.contiguous()
        return self.lines.prepare({self.start: self.moves(indices)}), None

    def moves(self, indices: Tensor) -> Tensor:
        """How `start` moves with each of the entries, (K, *shape)."""
        count = len(indices)
        y = value_of(self.start, self.base)
        moves = torch.zeros(count, *y.shape, dtype=y.dtype, device=y.device)
        each = torch.arange(count)
        if self.is_product:
            moves.view(count, -1, y.shape[-1])[each, :, self.column(indices)] = self._feature(indices).mT
        elif self.is_look_up:
            row, column = indices // self.shape[1], indices % self.shape[1]
            moves[each, ..., column] = (self._looked_up() == row.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)
        else:
            moves.view(count, -1)[each, indices] = 1.0
        return moves

    def alive(self, indices: Tensor) -> Tensor:
        """Mask of the entries on which the loss depends at all: an embedding's row that nobody looks up has no line."""
        if not self.is_look_up:
            return torch.full((len(indices),), bool(self.lines.meeting))
        return torch.isin(indices // self.shape[1], self._looked_up())

    def column(self, indices: Tensor) -> Tensor:
        """The column of y that each entry moves."""
        row, column = torch.div(indices, self.shape[1], rounding_mode="floor"), torch.remainder(indices, self.shape[1])
        return row if self._transposed else column

    @property
    def rows(self) -> Tensor:
        """The matrix x of the product, (R, n)."""
        assert self.user is not None
        x: Tensor = value_of(self.user.arguments[PRODUCTS[self.user.op][1]], self.base)
        return x.flatten(0, -2)

    @property
    def _transposed(self) -> bool:
        return self.user is not None and PRODUCTS[self.user.op][2]

    def _feature(self, indices: Tensor) -> Tensor:
        """x[:, j] of each entry, (R, K)."""
        feature = indices % self.shape[1] if self._transposed else indices // self.shape[1]
        features: Tensor = self.rows[:, feature]
        return features

    def _column_basis(self, column: int) -> Lines:
        """R basis moves: each row of the column of y by itself."""
        if self._prepared is None or self._prepared[0] != column:
            y = value_of(self.start, self.base)
            count = self.rows.shape[0]
            basis = torch.zeros(count, count, y.shape[-1], dtype=y.dtype, device=y.device)
            basis[range(count), range(count), column] = 1.0
            self._prepared = column, self.lines.prepare({self.start: basis.view(count, *y.shape)})
        return self._prepared[1]

    def _looked_up(self) -> Tensor:
        """The row that each place of the output looks up; -1 for the padding row, which is held."""
        assert self.user is not None
        rows: Tensor = value_of(self.user.arguments["indices"], self.base)
        return torch.where(rows == self.user.arguments["padding_idx"], -1, rows)

    def _reason(self) -> str:
        if self.is_product:
            return f"from the output of {self.start} on, one column of which moves with an entry"
        if self.is_look_up:
            return f"from the output of {self.start} on, of which the rows that look the entry up move"
        return f"from {self.ref} on"


def only_user(graph: Graph, ref: Ref) -> Node | None:
    """The node that uses the value, if there is exactly one and it uses it once."""
    users = [node for node in graph.nodes for used in node.refs() if used == ref]
    return users[0] if len(users) == 1 else None


def _is_product(user: Node, ref: Ref, base: Mapping[str, Value]) -> bool:
    if user.op not in PRODUCTS or value_of(ref, base).dim() != 2:
        return False
    matrix, other, _ = PRODUCTS[user.op]
    factor = user.arguments[other]
    return user.arguments[matrix] == ref and isinstance(factor, Ref) and value_of(factor, base).dim() >= 2


def _is_look_up(user: Node, ref: Ref) -> bool:
    return user.op == aten.embedding.default and list(refs_in(user.arguments["weight"])) == [ref]
