"""dead-units: units of a layer that are zero for every example.

What it checks
    The outputs of every ReLU that follows a layer: units that are zero at every position of every example of the batch.
Why it matters
    Where a ReLU is zero its derivative is zero too. A unit that is zero for all inputs gets no gradient and never comes
    back; if all units of a layer are dead, nothing below it learns.
How it decides
    By counting. All of at least 8 units dead is an error; more than half of them over at least 16 positions is a warning,
    since independent units of an untrained layer are all zero there with a chance of 2^-16 each. A narrower layer may be
    dead by chance (a squeeze of 4 units); that is an error if it is so over at least 16 positions and no parameter below
    it gets any gradient.
Broken
    layer = nn.Linear(8, 16)
    nn.init.constant_(layer.bias, -20.0)
Repaired
    layer = nn.Linear(8, 16)
    nn.init.zeros_(layer.bias)
Limits
    One batch. Units that die later, under too high a learning rate, are seen only when the check is made again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from chainrule.checks.flow import NORMS, REARRANGING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "dead-units"
aten = torch.ops.aten
RECTIFIERS = (aten.relu.default, aten.clamp_min.default, aten.relu6.default)
UNITS, POSITIONS = 8, 16
MANY = 0.5


def check(subject: Subject) -> Outcome:
    """Count the units that are zero everywhere."""
    flow = Flow(subject.exact, subject.values)
    rectified = list(_rectified(flow))
    if not rectified:
        return NotRun("no layer is followed by a ReLU")
    return [finding for node, channel in rectified for finding in _judge(node, channel, flow, subject)]


def _rectified(flow: Flow) -> Iterator[tuple[Node, int]]:
    """(ReLU, axis of its units) of every ReLU that follows a layer, with or without a normalisation between."""
    weights = {node.name for node, _, _ in flow.layers()}
    for node in flow.graph.nodes:
        if node.op in RECTIFIERS and isinstance(node.arguments["self"], Ref):
            maker = flow.maker(node.arguments["self"], through=REARRANGING | NORMS)
            if isinstance(maker, Node) and maker.name in weights and flow.value(Ref(node.name)).dim() > 1:
                yield node, 1 if "conv" in str(maker.op) else -1


def _judge(node: Node, channel: int, flow: Flow, subject: Subject) -> list[Finding]:
    value: Tensor = flow.value(Ref(node.name)).movedim(channel, -1).flatten(0, -2)
    positions, units = value.shape
    dead = int((value == 0).all(0).sum())
    if units < UNITS:  # a narrow layer may be dead by chance; it matters if nothing goes round it
        wrong = dead == units and positions >= POSITIONS and _nothing_learns(node, flow, subject)
    else:
        wrong = (dead == units and positions > 1) or (positions >= POSITIONS and dead > MANY * units)
    return [_finding(node, dead, units, positions, subject)] if wrong else []


def _nothing_learns(node: Node, flow: Flow, subject: Subject) -> bool:
    """True if no parameter below the node gets a gradient."""
    leaves = (flow.graph.leaves.get(name) for name in flow.ancestors(node.name))
    below = [subject.gradients[leaf.path] for leaf in leaves if leaf is not None and leaf.trainable]
    return bool(below) and not any(bool((gradient != 0).any()) for gradient in below)


def _finding(node: Node, dead: int, units: int, positions: int, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="error" if dead == units else "warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{dead} of {units} units are zero for every example: they get no gradient",
        evidence={"dead": dead, "units": units, "positions": positions},
        rows=(("dead units", f"{dead} of {units}", f"zero at all {positions:,} positions of the batch"),),
        notes=(
            "Look at the bias and the scale of the layer before it, and at inputs that are far from zero mean; "
            "leaky_relu or gelu let a gradient through.",
        ),
        reproduce=subject.reproduce(NAME),
    )
