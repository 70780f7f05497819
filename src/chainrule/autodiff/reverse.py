"""Reverse mode: the chain rule from the loss down to every leaf, by our own derivative rules.

For a node y = op(x, ...) with adjoint ȳ = dL/dy the rule gives ȳ · ∂y/∂x, and a value's adjoint is the sum over all the
nodes that use it:  x̄ = Σ_consumers ȳ_c · ∂y_c/∂x  (Griewank & Walther, Evaluating Derivatives, 2nd ed., ch. 3).
Un-broadcasting, casting and summing stand here once, so that a rule holds nothing but its formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate, loss_of, resolve, value_of
from chainrule.autodiff.fallback import numerical_pull_back
from chainrule.derivatives import FLAT, RULES
from chainrule.derivatives.rule import Rule
from chainrule.errors import MissingRuleError
from chainrule.graph import Graph, Node, Ref, Spec, Value, refs_in


def value_and_grad(graph: Graph, leaves: Mapping[str, Value] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradient with respect to every trainable parameter, by name; zeros where it has no influence.

    leaves  overrides the recorded values, by leaf name, as in `evaluate`
    """
    values = evaluate(graph, leaves)
    adjoints = reverse(graph, values, keep_all=False)
    gradients = {
        path: adjoints[Ref(leaf.name)] if Ref(leaf.name) in adjoints else torch.zeros_like(values[leaf.name])
        for path, leaf in graph.parameters.items()
    }
    return loss_of(graph, values), gradients


def reverse(
    graph: Graph,
    values: Mapping[str, Value],
    *,
    seeds: Mapping[Ref, Tensor] | None = None,
    keep_all: bool = True,
) -> dict[Ref, Tensor]:
    """Adjoints dL/dvalue of all values on a path from a trainable leaf to the loss.

    values    of an evaluation of this graph
    seeds     what flows in: {graph.output: 1} by default; any value may be seeded, since the adjoint system is linear
    keep_all  False frees the adjoint of a node's output as soon as the node is done: training needs only the leaves

    An op on the path that has no rule is differentiated numerically if it is small (`without_rule` lists such nodes), else
    MissingRuleError is raised.
    """
    active = active_values(graph)
    adjoints: dict[Ref, Tensor] = dict(seeds or {graph.output: torch.ones_like(loss_of(graph, values))})
    with torch.no_grad():
        for node in reversed(graph.nodes):
            outputs = [ref for ref in output_refs(node) if ref in adjoints]
            if outputs and any(ref in active for ref in node.refs()):
                for ref, gradient in pull_back(node, values, adjoints):
                    if ref in active:
                        adjoints[ref] = adjoints[ref] + gradient if ref in adjoints else gradient
            if not keep_all:
                for ref in outputs:
                    del adjoints[ref]
    return adjoints


def pull_back(node: Node, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor]) -> Iterator[tuple[Ref, Tensor]]:
    """(argument, its share ȳ · ∂y/∂x of the gradient) for every argument of one node, in the argument's shape and dtype."""
    g = cotangent(node, values, adjoints)
    rule = RULES.get(node.op)
    if rule is None:
        yield from numerical_pull_back(node, values, g)
    else:
        gradients = rule.gradients(g, values[node.name], resolve(node, values))
        yield from shares(node, rule, gradients, values)


def shares(
    node: Node, rule: Rule, gradients: Mapping[str, Any], values: Mapping[str, Value]
) -> Iterator[tuple[Ref, Tensor]]:
    """Spread what a rule returned over the graph values: one (argument, gradient) for each `Ref` that can have one."""
    for name, gradient in gradients.items():
        for ref, part in _pairs(node.arguments[name], gradient):
            if part is not None and name not in rule.nondiff:
                argument = value_of(ref, values)
                if argument.is_floating_point() or argument.is_complex():  # a factor may be a mask or a count
                    yield ref, fit(part, argument)


def cotangent(node: Node, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor]) -> Any:
    """What arrives at the node's output: dL/dy, or a tuple for several outputs, zeros where nothing arrives."""
    if isinstance(node.spec, Spec):
        return adjoints[Ref(node.name)]
    outputs = enumerate(values[node.name])
    return tuple(_arriving(Ref(node.name, index), value, adjoints) for index, value in outputs)


def fit(gradient: Tensor, argument: Tensor) -> Tensor:
    """Un-broadcast and cast a gradient to the argument it belongs to: each broadcast copy contributes, so they are summed."""
    if gradient.shape != argument.shape:
        gradient = gradient.sum_to_size(argument.shape)
    return gradient if gradient.dtype == argument.dtype else gradient.to(argument.dtype)


def rule_of(node: Node) -> Rule:
    """The node's rule. Raises MissingRuleError with the place and the way out."""
    if (rule := RULES.get(node.op)) is not None:
        return rule
    raise MissingRuleError(
        f"{node.op} has no derivative rule; it stands on the gradient path at {node.where} ({node.source}). "
        "Add one in chainrule/derivatives (CONTRIBUTING, 'add a derivative rule')."
    )


def without_rule(graph: Graph) -> list[Node]:
    """The nodes on the gradient path whose op has no rule; what rests on them is not proved by rules."""
    active = active_values(graph)
    unknown = (node for node in graph.nodes if node.op not in RULES and node.op not in FLAT)
    return [node for node in unknown if any(ref in active for ref in node.refs())]


def output_refs(node: Node) -> tuple[Ref, ...]:
    """The graph values that a node computes."""
    if isinstance(node.spec, Spec):
        return (Ref(node.name),)
    return tuple(Ref(node.name, index) for index in range(len(node.spec)))


def active_values(graph: Graph) -> set[Ref]:
    """All floating-point values on which some trainable leaf has an influence that a gradient can carry."""
    active = {Ref(leaf.name) for leaf in graph.leaves.values() if leaf.trainable}
    for node in graph.nodes:
        if node.op in FLAT or not any(ref in active for ref in differentiable_refs(node)):
            continue
        specs = (node.spec,) if isinstance(node.spec, Spec) else node.spec
        for ref, spec in zip(output_refs(node), specs, strict=True):
            if spec is not None and spec.dtype.is_floating_point:
                active.add(ref)
    return active


def differentiable_refs(node: Node) -> Iterator[Ref]:
    """What the node refers to in arguments that get a gradient: no indices, masks or running statistics."""
    rule = RULES.get(node.op)
    for name, argument in node.arguments.items():
        if rule is None or name not in rule.nondiff:
            yield from refs_in(argument)


def _arriving(ref: Ref, value: Any, adjoints: Mapping[Ref, Tensor]) -> Tensor | None:
    if ref in adjoints:
        return adjoints[ref]
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return torch.zeros_like(value) if floating else None


def _pairs(argument: Any, gradient: Any) -> Iterator[tuple[Ref, Tensor | None]]:
    if isinstance(argument, Ref):
        yield argument, gradient
    elif isinstance(argument, tuple) and gradient is not None:
        for item, part in zip(argument, gradient, strict=True):
            if isinstance(item, Ref):
                yield item, part
