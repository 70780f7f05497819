"""fully-masked-row: attention over nothing, and the loss uses the result.

What it checks
    Rows of every softmax, and of every mask given to scaled_dot_product_attention, in which all entries are masked, and
    whether a gradient comes back to that row.
Why it matters
    With a mask of -inf such a row is nan; with one of -1e9 it is the plain mean over everything that was to be hidden; fused
    attention returns 0. Each is silently wrong if the loss reads it, and harmless if it does not (padding).
How it decides
    All entries of the row at -10,000 or below (or False), and dL/doutput of the row not zero. A warning.
Broken
    weights = torch.full((2, 3), -1e9).softmax(-1)
Repaired
    weights = torch.tensor([[0.0, -1e9, -1e9], [0.0, 0.0, -1e9]]).softmax(-1)
Limits
    Rows of -inf make the loss nan where it reads them; that is said before any check runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from chainrule.checks.flow import Flow, adjoints_above
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "fully-masked-row"
aten = torch.ops.aten
SOFTMAX = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
ATTENTION = aten.scaled_dot_product_attention.default
MASKED = -1e4  # no score of an honest row comes near; float16 masks use it


def check(subject: Subject) -> Outcome:
    """Look for rows without any entry to attend to."""
    flow = Flow(subject.exact, subject.values)
    rows = [(node, hidden) for node in flow.graph.nodes for hidden in _hidden(node, flow)]
    if not rows:
        return NotRun("no softmax or masked attention is in the model")
    masked = [(node, hidden) for node, hidden in rows if bool(hidden.any())]
    adjoints = adjoints_above(subject.exact, subject.values, {node.name for node, _ in masked}) if masked else {}
    counts = ((node, _used(node, hidden, adjoints), hidden.numel()) for node, hidden in masked)
    return [_finding(node, used, total, subject) for node, used, total in counts if used]


def _hidden(node: Node, flow: Flow) -> Iterator[Tensor]:
    """Which rows of the node are masked throughout; the shape of its output without the row's axis."""
    if node.op in SOFTMAX and isinstance(node.arguments["self"], Ref):
        yield (flow.value(node.arguments["self"]) <= MASKED).all(node.arguments["dim"])
    elif node.op is ATTENTION and isinstance(node.arguments["attn_mask"], Ref):
        mask = flow.value(node.arguments["attn_mask"])
        shut = ~mask if mask.dtype is torch.bool else mask <= MASKED
        yield shut.all(-1).expand(flow.value(Ref(node.name)).shape[:-1])


def _used(node: Node, hidden: Tensor, adjoints: Mapping[Ref, Tensor]) -> int:
    """How many of the hidden rows the loss reads."""
    adjoint = adjoints.get(Ref(node.name))
    if adjoint is None:
        return 0
    axis = -1 if node.op is ATTENTION else node.arguments["dim"]
    return int((hidden & (adjoint != 0).any(axis)).sum())


def _finding(node: Node, used: int, total: int, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{used} rows attend to nothing at all, and the loss uses what they give",
        evidence={"rows": used, "of": total},
        rows=(("rows masked throughout", f"{used:,} of {total:,}", "read by the loss"),),
        notes=(
            "Leave out of the loss what has nothing to attend to, or let each position see itself. Look at whether the mask "
            "means True = keep or True = hide.",
        ),
        reproduce=subject.reproduce(NAME),
    )
