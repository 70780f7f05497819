"""A loss that is inf or nan: where that begins, and why, as far as it can be told."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import resolve
from chainrule.derivatives import RULES
from chainrule.derivatives.rule import call_by_name
from chainrule.errors import SetupError
from chainrule.graph import Graph, Node, Value, op_name


def check_finite(graph: Graph, loss: Tensor, values: Mapping[str, Value]) -> None:
    """Raise SetupError, naming where it begins, if the loss is inf or nan: no gradient of it has a meaning."""
    if torch.isfinite(loss):
        return
    for name, leaf in graph.leaves.items():
        if not _finite(values[name]):
            count = int((~torch.isfinite(leaf.value)).sum())
            raise SetupError(
                f"the loss is {float(loss)}: {leaf.kind} {leaf.path} {tuple(leaf.value.shape)} holds {count:,} inf or nan; "
                "no gradient has a meaning there. Clean the input, or look at how the parameter was initialised"
            )
    first = next(node for node in graph.nodes if not _finite(values[node.name]))
    first = _undefined_before(first, graph, values) or first
    raise SetupError(
        f"the loss is {float(loss)}: its input is finite, and inf or nan first appears in {first.where} "
        f"({first.source}: {first.source.code if first.source else ''}){_why_not_finite(first, values)}"
    )


def _undefined_before(node: Node, graph: Graph, values: Mapping[str, Value]) -> Node | None:
    """The formula behind `node` that was given a number outside its domain (log of 0 is -inf); None if there is none."""
    behind: set[str] = {node.name}
    for earlier in reversed(graph.nodes):
        if earlier.name in behind:
            behind |= {ref.name for ref in earlier.refs()}
            output = values[earlier.name]
            if _outside_domain(earlier, values) and isinstance(output, Tensor) and bool((output == -torch.inf).any()):
                return earlier
    return None


def _outside_domain(node: Node, values: Mapping[str, Value]) -> int:
    """How many entries the node's formula is not defined for."""
    rule = RULES.get(node.op)
    return 0 if rule is None or rule.domain is None else int((~call_by_name(rule.domain, resolve(node, values))).sum())


def _why_not_finite(node: Node, values: Mapping[str, Value]) -> str:
    """What is known of the formulas that most often give inf or nan, as the end of a sentence."""
    arguments = resolve(node, values)
    if "ignore_index" in arguments and bool((arguments["target"] == arguments["ignore_index"]).all()):
        return f": every label is {arguments['ignore_index']}, which the loss ignores; leave such batches out"
    if op_name(node.op) in ("softmax", "safe_softmax"):
        return ": a row of it is masked throughout; leave one entry of each row unmasked"
    if op_name(node.op) == "exp":
        return ": its input is too large; subtract the maximum first, or use logsumexp or softmax"
    if outside := _outside_domain(node, values):
        return f": {outside:,} of its inputs lie outside its domain; clamp them, or use log_softmax or logsigmoid"
    return ""


def _finite(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(_finite(item) for item in value)
    # -inf is what attention masks are made of; +inf and nan have no honest use in a forward pass
    return not (
        isinstance(value, Tensor) and value.is_floating_point() and bool((value.isnan() | (value == torch.inf)).any())
    )
