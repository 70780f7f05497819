"""nan-gradient: the loss is finite and its gradient is not.

What it checks
    The gradient of every parameter, as torch.autograd computes it in the model's own dtype, is finite; if not, which formula
    made the first inf or nan.
Why it matters
    One nan in a gradient makes the parameter nan at the next step, and everything after it. The loss that is printed is still
    fine: sqrt has value 0 at 0 and slope infinity, and where() hides a bad value but not 0 · inf in the branch not taken.
How it decides
    Any inf or nan in autograd's gradient is an error. The place is the last formula of forward whose own rule turns a finite
    incoming gradient into one that is not.
Broken
    y = torch.where(x > 0, x.sqrt(), 0.0)
Repaired
    y = torch.where(x > 0, x.clamp_min(1e-12).sqrt(), 0.0)
Limits
    One batch: a zero that other batches hold is not seen. Where our rule is finite and autograd's is not, only the parameters
    are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.autodiff.evaluate import evaluate
from chainrule.autodiff.reverse import active_values, output_refs, pull_back, reverse
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Outcome
from chainrule.graph import Node, Ref, Value, op_name

NAME = "nan-gradient"


@dataclass(frozen=True, eq=False)
class Origin:
    """The formula that makes the first bad gradient: where in its argument, that argument's value, and what arrived."""

    node: Node
    count: int
    size: int
    input: float
    arrived: float


def check(subject: Subject) -> Outcome:
    """Look for inf and nan in the user's own gradient, and for the formula that makes them."""
    gradients = subject.own.gradients
    bad = [path for path, g in gradients.items() if g is not None and not _finite(g)]
    return [_finding(bad, _origin(subject), subject)] if bad else []


def _finite(gradient: Tensor) -> bool:
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    return bool(torch.isfinite(values).all())


def _origin(subject: Subject) -> Origin | None:
    values = evaluate(subject.graph)
    adjoints = reverse(subject.graph, values)
    active = active_values(subject.graph)
    for node in reversed(subject.graph.nodes):
        arriving = [adjoints[ref] for ref in output_refs(node) if ref in adjoints]
        if not arriving or not all(bool(torch.isfinite(g).all()) for g in arriving):
            continue
        if any(ref in active for ref in node.refs()) and (origin := _made_here(node, values, adjoints, arriving[0])):
            return origin
    return None


def _made_here(
    node: Node, values: Mapping[str, Value], adjoints: Mapping[Ref, Tensor], arriving: Tensor
) -> Origin | None:
    for ref, share in pull_back(node, values, adjoints):
        bad = ~torch.isfinite(share)
        if bool(bad.any()):
            entry = values[ref.name] if ref.index is None else values[ref.name][ref.index]
            arrived = float(arriving[bad].abs().max()) if arriving.shape == bad.shape else float(arriving.abs().max())
            return Origin(node, int(bad.sum()), bad.numel(), float(entry[bad].flatten()[0]), arrived)
    return None


def _finding(bad: list[str], origin: Origin | None, subject: Subject) -> Finding:
    names = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    if origin is None:
        return Finding(
            check=NAME,
            severity="error",
            where=bad[0],
            message=f"the loss is finite and the gradient of {names} is inf or nan",
            evidence={"parameters": bad},
            reproduce=subject.reproduce(NAME),
        )
    node = origin.node
    return Finding(
        check=NAME,
        severity="error",
        where=node.where,
        source=line_of(node.source),
        message=f"the derivative of {op_name(node.op)} is inf or nan here, and so is the gradient of {len(bad)} parameters",
        evidence={"parameters": bad, "entries": origin.count, "input": str(origin.input), "arrived": origin.arrived},
        rows=(
            ("entries without a derivative", f"{origin.count:,} of {origin.size:,}", f"the first at {origin.input:g}"),
            ("gradient that arrives there", f"{origin.arrived:.3g}", _meaning(origin)),
        ),
        notes=(_advice(node, origin), f"Spoilt: {names}."),
        reproduce=subject.reproduce(NAME),
    )


def _meaning(origin: Origin) -> str:
    return "a branch that where() or a mask does not take: 0 · inf is nan" if origin.arrived == 0 else ""


def _advice(node: Node, origin: Origin) -> str:
    if "softmax" in op_name(node.op) or "attention" in op_name(node.op):
        return "A row is masked throughout; leave one entry of each row unmasked, or fill with a finite number."
    if origin.arrived == 0:
        return "Make the argument harmless before the formula (clamp it, or where() on the input); where() after it is too late."
    return f"Keep the argument of {op_name(node.op)} away from {origin.input:g}: add a small number inside it."
