"""Two gradients of one model, tensor by tensor: how far they are apart, and how far they may be."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from chainrule.autodiff.bound import bound_shares
from chainrule.autodiff.reverse import active_values
from chainrule.graph import Graph, Ref, Value
from chainrule.tolerance import Limit, agreement_limit

aten = torch.ops.aten
CARRIERS = frozenset(
    {
        aten._to_copy.default,
        aten.alias.default,
        aten.clone.default,
        aten.view.default,
        aten._unsafe_view.default,
        aten.t.default,
        aten.transpose.int,
        aten.permute.default,
        aten.unsqueeze.default,
        aten.squeeze.dim,
    }
)


@dataclass(frozen=True)
class Agreement:
    """One parameter: ‖ours − theirs‖ against its limit. `relative` is in units of the gradient's norm."""

    path: str
    entries: int
    difference: float
    norm: float
    limit: Limit

    @property
    def ok(self) -> bool:
        """Whether the two agree; a nan never does."""
        return self.difference <= self.limit.value

    @property
    def relative(self) -> float:
        """Difference as a share of the gradient's norm."""
        return self.difference / self.norm if self.norm else (0.0 if self.difference == 0 else float("inf"))


def agreements(
    graph: Graph,
    values: Mapping[str, Value],
    adjoints: Mapping[Ref, Tensor],
    theirs: Mapping[str, Tensor],
) -> Iterator[Agreement]:
    """Compare our adjoints of the parameters with another engine's gradients, every entry of every parameter.

    What a gradient sums is asked for those alone that differ by more than the gradient itself allows: it takes half as long
    as both gradients together, and seldom does any parameter need it.
    """
    found = {}
    for path, leaf in graph.parameters.items():
        other = theirs[path].double()
        ours = adjoints.get(Ref(leaf.name), torch.zeros_like(other))
        norm = float(other.norm())
        found[Ref(leaf.name)] = Agreement(
            path, other.numel(), float((ours - other).norm()), norm, agreement_limit(norm, 0.0)
        )
    apart = {ref for ref, agreement in found.items() if not agreement.ok}
    bounds = leaf_bounds(graph, values, adjoints, apart) if apart else {}
    for ref, agreement in found.items():
        yield replace(agreement, limit=agreement_limit(agreement.norm, bounds.get(ref, 0.0)))


def leaf_bounds(
    graph: Graph, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor], leaves: Set[Ref] | None = None
) -> dict[Ref, float]:
    """‖Σ |ȳ|·|∂y/∂x|‖ for each of the leaves: the size of what its gradient sums, before anything cancels.

    leaves  all trainable ones if None

    Where a leaf is cast or laid out anew before it is used (autocast does so to every weight), the sum that cancels is
    that of the user behind: its bound is carried through.
    """
    leaves = {Ref(leaf.name) for leaf in graph.parameters.values()} if leaves is None else leaves
    carried = _carried(graph, leaves)
    active = active_values(graph)
    sums: dict[Ref, Tensor] = {}
    for node in reversed(graph.nodes):
        arrives = Ref(node.name) in adjoints or any(Ref(node.name, i) in adjoints for i in range(_outputs(node.spec)))
        if arrives and any(ref in carried for ref in node.refs()) and any(ref in active for ref in node.refs()):
            for ref, bound in bound_shares(node, values, ChainMap(sums, dict(adjoints))):
                if ref in carried:
                    sums[ref] = sums[ref] + bound if ref in sums else bound
    return {ref: float(sums[ref].norm()) for ref in leaves if ref in sums}


def _carried(graph: Graph, leaves: Set[Ref]) -> set[Ref]:
    """The leaves, and what casts and changes of layout make of them."""
    carried = set(leaves)
    for node in graph.nodes:
        if node.op in CARRIERS and any(ref in carried for ref in node.refs()):
            carried.add(Ref(node.name))
    return carried


def _outputs(spec: object) -> int:
    return len(spec) if isinstance(spec, tuple) else 0
