"""identical-units: units of a layer are equal and get equal gradients, so they stay equal for ever.

What it checks
    Rows of every weight: two rows that are equal, with equal biases and equal gradients that are not zero.
Why it matters
    Equal units with equal gradients make equal steps under every usual optimizer. A layer of 512 such units has one. Weights
    filled with a constant are the usual cause.
How it decides
    Rows equal bit for bit whose gradients (chain rule, float64) differ by less than 1e-12 of their size. If that holds for
    all rows of a layer it is an error, for some of them a warning. A last layer of zeros is healthy: its gradients differ.
Broken
    layer = nn.Linear(8, 16)
    nn.init.constant_(layer.weight, 0.1)
    nn.init.zeros_(layer.bias)
Repaired
    layer = nn.Linear(8, 16)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
Limits
    Rows whose gradient is exactly zero on this batch are left out; the checks of the parameters look at those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.flow import LAYERS, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Leaf, Node, Ref

NAME = "identical-units"
ROUNDING = 1e-12


def check(subject: Subject) -> Outcome:
    """Compare the units of every layer with one another."""
    flow = Flow(subject.exact, subject.values)
    layers: dict[str, tuple[Node, Leaf]] = {}
    for node, _, weight in flow.layers():
        leaf = flow.graph.leaves.get(weight.name)
        if leaf is not None and leaf.path in subject.gradients and leaf.value.shape[0] > 1:
            layers.setdefault(leaf.path, (node, leaf))
    if not layers:
        return NotRun("no layer has a weight of its own with two units or more")
    return [finding for node, leaf in layers.values() for finding in _judge(node, leaf, flow, subject)]


def _judge(node: Node, leaf: Leaf, flow: Flow, subject: Subject) -> list[Finding]:
    values, gradients = _units(node, leaf, flow, subject)
    twins = _twins(values)
    equal = sum(len(rows) for rows in twins if len(rows) > 1 and _alike(gradients[rows]))
    return [_finding(node, leaf, equal, subject)] if equal else []


def _twins(values: Tensor) -> list[Tensor]:
    """The groups of rows that are equal bit for bit."""
    _, first, counts = torch.unique(values[:, 0], return_inverse=True, return_counts=True)
    candidates = torch.nonzero(counts[first] > 1).flatten()  # sorting whole rows of a large matrix would take seconds
    if len(candidates) == 0:
        return []
    _, group = torch.unique(values[candidates], dim=0, return_inverse=True)
    return [candidates[group == number] for number in range(int(group.max()) + 1)]


def _units(node: Node, leaf: Leaf, flow: Flow, subject: Subject) -> tuple[Tensor, Tensor]:
    """(values, gradients) of each unit: its weights, and its bias if there is one of its own."""
    axis = 1 if "transpose" in str(node.op) or LAYERS[node.op][1] != "weight" else 0
    parts = [(leaf.value.detach(), subject.gradients[leaf.path])]
    bias = node.arguments.get("bias")
    own = flow.graph.leaves.get(bias.name) if isinstance(bias, Ref) else None
    if own is not None and own.path in subject.gradients and own.value.shape == (leaf.value.shape[axis],):
        parts.append((own.value.detach(), subject.gradients[own.path]))
    values, gradients = zip(*(tuple(_rows(tensor, axis) for tensor in pair) for pair in parts), strict=True)
    return torch.cat(values, dim=1), torch.cat(gradients, dim=1)


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor[:, None] if tensor.dim() == 1 else tensor.movedim(axis, 0).flatten(1)


def _alike(gradients: Tensor) -> bool:
    size = float(gradients.norm())
    return size > 0 and float((gradients - gradients[0]).norm()) <= ROUNDING * size


def _finding(node: Node, leaf: Leaf, equal: int, subject: Subject) -> Finding:
    units = leaf.value.shape[0]
    return Finding(
        check=NAME,
        severity="error" if equal == units else "warning",
        where=leaf.path,
        source=line_of(node.source),
        message=f"{equal} of {units} units are equal and get equal gradients: they will stay equal",
        evidence={"equal": equal, "units": units},
        notes=(
            "Draw the initial weights at random (nn.init.xavier_uniform_, kaiming_uniform_); only biases may be constant.",
        ),
        reproduce=subject.reproduce(NAME),
    )
