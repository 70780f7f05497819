"""linear-stack: two linear layers in a row, with nothing between that bends.

What it checks
    Every layer whose output goes, rearranged at most, into one other layer and nowhere else.
Why it matters
    The product of two matrices is one matrix: the second layer adds parameters and no ability. Usually an activation was
    forgotten.
How it decides
    By the graph. A middle that is narrower than both ends is a factorisation that saves parameters, and is left alone, as
    are grouped convolutions and kernels that are not square (parts of a separable filter). The rest is a warning, since it
    may be meant.
Broken
    net = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 4))
Repaired
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
Limits
    A dropout or a normalisation between the two counts as something between.
"""

from __future__ import annotations

from collections.abc import Iterator

from chainrule.checks.flow import REARRANGING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "linear-stack"


def check(subject: Subject) -> Outcome:
    """Look for layers that feed a layer."""
    flow = Flow(subject.exact, subject.values)
    layers = {node.name: (node, inflow, weight) for node, inflow, weight in flow.layers()}
    if len(layers) < 2:
        return NotRun("there are fewer than two layers")
    return [
        _finding(first, second, flow, subject)
        for second, inflow, weight in layers.values()
        for first in _before(inflow, flow)
        if first.name in layers and not _meant(layers[first.name][2], weight, first, second, flow)
    ]


def _before(inflow: Ref, flow: Flow) -> Iterator[Node]:
    """The node that makes the inflow, if nobody else uses it."""
    maker = flow.maker(inflow)
    if isinstance(maker, Node) and len(list(flow.takers(maker, through=REARRANGING))) == 1:
        yield maker


def _meant(first: Ref, second: Ref, one: Node, other: Node, flow: Flow) -> bool:
    """True for a factorisation: a narrow middle, groups, or a kernel that is not square."""
    if any(node.arguments.get("groups", 1) != 1 for node in (one, other)):
        return True
    shapes = [flow.value(weight).shape for weight in (first, second)]
    if any(len(set(shape[2:])) > 1 for shape in shapes) or flow.parameter(first) == flow.parameter(second):
        return True
    middle = flow.value(Ref(one.name)).shape[1 if "conv" in str(one.op) else -1]
    ends = [max(shape[:2]) if min(shape[:2]) == middle else min(shape[:2]) for shape in shapes]
    return middle < min(ends)


def _finding(first: Node, second: Node, flow: Flow, subject: Subject) -> Finding:
    names = [node.module or node.where for node in (first, second)]
    return Finding(
        check=NAME,
        severity="warning",
        where=names[1],
        source=line_of(second.source),
        message=f"{names[0]} goes straight into {names[1]}: two linear layers without a nonlinearity are one",
        evidence={"first": names[0], "second": names[1], "width": flow.value(Ref(first.name)).shape[-1]},
        notes=("Put an activation between them, or merge them.",),
        reproduce=subject.reproduce(NAME),
    )
