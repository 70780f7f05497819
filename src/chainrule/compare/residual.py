"""Adjoint residuals: where the user's recorded backward is not the chain rule of its own forward.

For every value x of the recorded run,   r_x = x̄(recorded) − Σ_consumers ȳ(recorded) · ∂y/∂x(our rule, float64).
What arrives at each formula is what the user's backward really passed on, so no error travels and a nonzero residual is
the location of the fault (design: "local versus end to end"). Its size is read in units of the dtype's rounding, and set
against the residual of torch's own derivative of the same formula on the same numbers in the same dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from chainrule.autodiff.bound import bound_shares
from chainrule.autodiff.evaluate import run_op, value_of
from chainrule.autodiff.reverse import active_values, differentiable_refs, fit, output_refs, pull_back
from chainrule.derivatives import FLAT
from chainrule.graph import Graph, Node, Ref, Spec, Value
from chainrule.tolerance import unit


@dataclass(frozen=True)
class Units:
    """A residual in units of rounding: as a norm, at its worst entry, and along the expected gradient (a bias).

    norm   ‖r‖ / u‖b‖            b the sum of absolute terms
    entry  max |r_i| / u b_i
    bias   ⟨r, e⟩ / u √Σ(b_i e_i)²   e the expected gradient: rounding averages out over the entries, a wrong factor does not
    """

    norm: float
    entry: float
    bias: float


@dataclass(frozen=True, eq=False)
class Residual:
    """One value's recorded adjoint against what the chain rule makes of what its consumers received."""

    ref: Ref
    consumers: tuple[Node, ...]
    given: Tensor
    expected: Tensor
    bound_norm: float
    u: float
    units: Units
    stock: Units

    @property
    def recorded(self) -> Tensor:
        """What the user's backward gave, as float64."""
        return self.given.double()

    @property
    def size(self) -> float:
        """‖recorded − expected‖."""
        return float((self.recorded - self.expected).norm())

    @property
    def relative(self) -> float:
        """‖recorded − expected‖ / ‖expected‖."""
        return self.size / max(float(self.expected.norm()), 1e-300)


class _Sums:
    """What flows into each value while the sweep goes backwards: by our rule, as absolute terms, by torch's own derivative."""

    def __init__(self, graph: Graph) -> None:
        self.expected: dict[Ref, Tensor] = {}
        self.bound: dict[Ref, Tensor] = {}
        self.stock: dict[Ref, Tensor] = {}
        # All of them, those that pass no gradient on too: the user's backward may (straight-through).
        self.consumers: dict[Ref, list[Node]] = {}
        self._leaves, self._exact = graph.leaves, dict[str, Value]()
        for node in graph.nodes:
            for ref in dict.fromkeys(node.refs()):
                self.consumers.setdefault(ref, []).append(node)

    def exact(self, name: str, values: Mapping[str, Value]) -> Value:
        """A value in float64: a node's is made once for all its users, a leaf's (large, seldom shared) each time."""
        if name in self._leaves:
            return double(values[name])
        if name not in self._exact:
            self._exact[name] = double(values[name])
        return self._exact[name]

    def forget(self, node: Node) -> None:
        """Let go of what belongs to the outputs of a node that is done."""
        self._exact.pop(node.name, None)
        for ref in output_refs(node):
            for sums in (self.expected, self.bound, self.stock):
                sums.pop(ref, None)


def residuals(
    graph: Graph,
    values: Mapping[str, Value],
    recorded: Mapping[Ref, Tensor],
    given: Mapping[Ref, Tensor] = MappingProxyType({}),
) -> Iterator[Residual]:
    """One `Residual` for every value whose adjoint was recorded, from the loss down to the leaves.

    graph, values  of the recorded run, in the user's dtypes
    recorded       adjoints that the user's backward produced; a value without one (inside a custom Function, say) gets the
                   chain rule's, so that the next recorded value below it answers for the whole stretch
    given          what reaches a value from outside the graph: from a custom Function whose forward is opaque
    """
    # A value that the user's backward reached counts too, be it behind an op whose derivative is zero (straight-through).
    active = active_values(graph) | recorded.keys()
    sums = _Sums(graph)
    sums.expected[graph.output] = sums.bound[graph.output] = torch.ones((), dtype=torch.float64)
    sums.stock[graph.output] = torch.ones_like(value_of(graph.output, values))
    for ref, share in given.items():
        sums.expected[ref], sums.bound[ref], sums.stock[ref] = double(share), double(share).abs(), share
    with torch.no_grad():
        for node in reversed(graph.nodes):
            refs = [ref for ref in output_refs(node) if ref in sums.expected or ref in recorded]
            for ref in refs:
                if ref in recorded and ref != graph.output:
                    yield _residual(ref, sums, recorded[ref], values)
            if refs and node.op not in FLAT and any(ref in active for ref in node.refs()):
                _sweep(node, refs, sums, values, recorded, active)
            sums.forget(node)
        for leaf in graph.leaves.values():
            if (ref := Ref(leaf.name)) in recorded:
                yield _residual(ref, sums, recorded[ref], values)


def _sweep(
    node: Node,
    refs: list[Ref],
    sums: _Sums,
    values: Mapping[str, Value],
    recorded: Mapping[Ref, Tensor],
    active: set[Ref],
) -> None:
    exact = {name: sums.exact(name, values) for name in {node.name, *(ref.name for ref in node.refs())}}
    arriving = {ref: double(recorded[ref]) if ref in recorded else sums.expected[ref] for ref in refs}
    scale = {ref: double(recorded[ref]) if ref in recorded else sums.bound[ref] for ref in refs}
    own = {ref: recorded.get(ref, sums.stock.get(ref)) for ref in refs}
    for ref, share in pull_back(node, exact, arriving):
        if ref in active:
            _add(sums.expected, ref, share)
    for ref, share in bound_shares(node, exact, scale):
        if ref in active:
            _add(sums.bound, ref, share)
    for ref, share in torch_shares(node, values, {ref: g for ref, g in own.items() if g is not None}, active):
        _add(sums.stock, ref, share)


def torch_shares(
    node: Node, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor], active: set[Ref]
) -> Iterator[tuple[Ref, Tensor]]:
    """torch.autograd's own vector-Jacobian product of one node, in the dtype of its values: the yardstick for rounding."""
    # Not the running statistics of batch norm, though those of a second call stem from the parameters: torch refuses them.
    names = {ref for ref in differentiable_refs(node) if ref in active}
    inputs = {ref: value_of(ref, values).detach().requires_grad_() for ref in names}
    with torch.enable_grad():
        arguments = {name: _substitute(argument, inputs, values) for name, argument in node.arguments.items()}
        outputs = run_op(node.op, arguments)
    outputs = [outputs] if isinstance(node.spec, Spec) else list(outputs)
    pairs = [(y, adjoints[ref]) for ref, y in zip(output_refs(node), outputs, strict=True) if ref in adjoints]
    pairs = [(y, fit(g, y)) for y, g in pairs if y.requires_grad]
    if not pairs:
        return
    gradients = torch.autograd.grad(
        [y for y, _ in pairs], list(inputs.values()), [g for _, g in pairs], allow_unused=True
    )
    for ref, gradient in zip(inputs, gradients, strict=True):
        if gradient is not None:
            yield ref, gradient


def _residual(ref: Ref, sums: _Sums, recorded: Tensor, values: Mapping[str, Value]) -> Residual:
    nothing = torch.zeros((), dtype=torch.float64).expand(recorded.shape)
    expected, bound = sums.expected.get(ref, nothing), sums.bound.get(ref, nothing)
    consumers = tuple(sums.consumers.get(ref, ()))
    value = value_of(ref, values)
    u = max(unit(dtype) for dtype in _dtypes(value, consumers, values))
    stock = sums.stock.get(ref)
    yard = _Yard(expected, bound, u)
    yardstick = yard.units(stock) if stock is not None else Units(0, 0, 0)
    return Residual(ref, consumers, recorded, expected, yard.size, u, yard.units(recorded), yardstick)


class _Yard:
    """What residuals of one value are measured with; made once for the user's and for torch's own.

    expected  the gradient, bound the sum of absolute terms in it, u the rounding of the dtype
    """

    def __init__(self, expected: Tensor, bound: Tensor, u: float) -> None:
        self.expected, self.u = expected, u
        self.size = float(bound.norm())
        room = bound * expected
        self.spread = float(room.norm())
        # An entry whose terms are all tiny is judged by its neighbours' size.
        self.entries = torch.add(bound, 1e-3 * self.size / max(bound.numel(), 1) ** 0.5, out=room)

    def units(self, gradient: Tensor) -> Units:
        """How far a gradient, in any precision, is from the expected one, in units of rounding; see `Units`."""
        if gradient.numel() == 0:
            return Units(0, 0, 0)
        r = torch.sub(gradient, self.expected)
        norm = float(r.norm())
        if self.size == 0:
            return Units(*(3 * (float("inf") if norm else 0.0,)))
        along = float(torch.dot(r.flatten(), self.expected.flatten()))
        bias = abs(along) / (self.u * self.spread) if self.spread else 0.0
        entry = float(r.div_(self.entries).abs_().max()) / self.u
        return Units(norm / (self.u * self.size), entry, bias)


def _dtypes(value: Tensor, consumers: tuple[Node, ...], values: Mapping[str, Value]) -> set[torch.dtype]:
    dtypes = {value.dtype}
    for node in consumers:
        for ref in (*node.refs(), *output_refs(node)):
            other = value_of(ref, values)
            if isinstance(other, Tensor) and other.is_floating_point():
                dtypes.add(other.dtype)
    return dtypes


def _substitute(argument: object, inputs: Mapping[Ref, Tensor], values: Mapping[str, Value]) -> object:
    if isinstance(argument, Ref):
        return inputs.get(argument, value_of(argument, values))
    if isinstance(argument, tuple):
        return [_substitute(item, inputs, values) for item in argument]
    return argument


def _add(sums: dict[Ref, Tensor], ref: Ref, share: Tensor) -> None:
    sums[ref] = sums[ref] + share if ref in sums else share


def double(value: Value) -> Value:
    """The value in float64, integers and masks as they are."""
    if isinstance(value, tuple):
        return tuple(double(item) for item in value)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
