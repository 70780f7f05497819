"""How a perturbation passes through the ops that are linear in it: exactly, once for all step lengths, underived.

If every op between a moved value x and a later value z is linear in what moves, then z(x + t e) = z(x) + t ż exactly,
where ż is found by sending e itself through the ops, their constant terms (biases) set to zero. Only linearity is
used. It is declared by `Rule.linear_in` and tried on random numbers before it is relied on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve, value_of
from chainrule.autodiff.reverse import output_refs
from chainrule.compare.written_out import WRITTEN_OUT
from chainrule.derivatives import RULES
from chainrule.graph import Node, Ref, Value, refs_in

aten = torch.ops.aten
LINEARITY = 1e-9  # relative; float64 rounding leaves 1e-14 of an op that is linear, 1e-2 of one that is not

# Ops that are linear in all their tensors at once, so that several of them may move together.
ADDITIVE = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.rsub.Tensor, aten.cat.default, aten.stack.default})
# Arguments that stand in an additive term of their own; they are zero in the linear part of the others.
CONSTANT_TERM: Mapping[Any, tuple[frozenset[str], ...]] = {
    aten.linear.default: (frozenset({"input", "weight"}), frozenset({"bias"})),
    aten.addmm.default: (frozenset({"self"}), frozenset({"mat1", "mat2"})),
    aten.conv1d.default: (frozenset({"input", "weight"}), frozenset({"bias"})),
    aten.conv2d.default: (frozenset({"input", "weight"}), frozenset({"bias"})),
    aten.layer_norm.default: (frozenset({"weight"}), frozenset({"bias"})),
    aten.group_norm.default: (frozenset({"weight"}), frozenset({"bias"})),
    aten.masked_fill.Scalar: (frozenset({"self"}), frozenset({"value"})),
    aten.add.Scalar: (frozenset({"self"}), frozenset({"other"})),
    aten.sub.Scalar: (frozenset({"self"}), frozenset({"other"})),
    aten.where.self: (frozenset({"self"}), frozenset({"other"})),
}


class LinearStep:
    """The linear part of one node: tangents of the moving arguments in, tangent of the output out."""

    def __init__(self, node: Node, moving: frozenset[Ref], base: Mapping[str, Value]) -> None:
        self.node = node
        self.moving = tuple(dict.fromkeys(ref for ref in node.refs() if ref in moving))
        self._base = base
        self._still = self._still_arguments()

    def __call__(self, tangents: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
        """The tangents of the node's outputs."""
        arguments = {name: self._tangent(name, tangents) for name in self.node.arguments}
        output = WRITTEN_OUT.get(self.node.op, self.node.op)(**arguments)
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        return dict(zip(output_refs(self.node), outputs, strict=True))

    def _tangent(self, name: str, tangents: Mapping[Ref, Tensor]) -> Any:
        argument = self.node.arguments[name]
        if not any(ref in tangents for ref in refs_in(argument)):
            return self._still[name]
        if isinstance(argument, Ref):
            return tangents[argument]
        return [
            tangents.get(item, still) if isinstance(item, Ref) else still
            for item, still in zip(argument, self._still[name], strict=True)
        ]

    def _still_arguments(self) -> dict[str, Any]:
        """The arguments that do not move, those that stand in a term of their own set to zero."""
        arguments = resolve(self.node, self._base)
        names = moving_arguments(self.node, frozenset(self.moving))
        if self.node.op in ADDITIVE:
            zeroed = frozenset(arguments) - {"alpha", "dim"}
        else:
            terms = CONSTANT_TERM.get(self.node.op, ())
            zeroed = frozenset().union(*(term for term in terms if not term & names))
        return {name: _zero(value) if name in zeroed else value for name, value in arguments.items()}


def linear_step(
    node: Node, moving: frozenset[Ref], base: Mapping[str, Value], generator: torch.Generator
) -> LinearStep | None:
    """The node's linear part, or None if the node is not linear in all that moves jointly."""
    rule = RULES.get(node.op)
    names = moving_arguments(node, moving)
    if rule is None or rule.frozen is not None or not names <= rule.linear_in:
        return None
    if len(names) > 1 and node.op not in ADDITIVE and not _in_separate_terms(node, names):
        return None
    step = LinearStep(node, moving, base)
    return step if _is_linear(step, base, generator) else None


def moving_arguments(node: Node, moving: frozenset[Ref]) -> frozenset[str]:
    """Names of the arguments that hold a moving value."""
    return frozenset(name for name, value in node.arguments.items() if any(ref in moving for ref in refs_in(value)))


def _in_separate_terms(node: Node, names: frozenset[str]) -> bool:
    terms = CONSTANT_TERM.get(node.op, ())
    return bool(terms) and all(len(names & term) <= 1 for term in terms) and names <= frozenset().union(*terms)


def _is_linear(step: LinearStep, base: Mapping[str, Value], generator: torch.Generator) -> bool:
    """f(a - 3b) = f(a) - 3 f(b) on random numbers: linear, and without a constant term."""
    shapes = {ref: value_of(ref, base).shape for ref in step.moving}

    def draw() -> dict[Ref, Tensor]:
        return {ref: torch.randn(s, generator=generator, dtype=torch.float64) for ref, s in shapes.items()}

    a, b = draw(), draw()
    try:
        left = step({ref: a[ref] - 3 * b[ref] for ref in shapes})
        f_a, f_b = step(a), step(b)
    except (RuntimeError, TypeError):  # an op that cannot run with its constant term at zero
        return False
    return all(_close(left[ref], f_a[ref] - 3 * f_b[ref]) for ref in left)


def _close(left: Any, right: Any) -> bool:
    scale = float(right.abs().max()) if right.numel() else 0.0
    return not right.numel() or bool((left - right).abs().max() <= LINEARITY * scale)


def _zero(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_zero(item) for item in value]
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    return 0.0 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
