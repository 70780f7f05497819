"""saturated-units: sigmoids and tanhs so far from zero that they pass on no gradient.

What it checks
    The slope of every sigmoid and tanh that follows a layer, entry by entry.
Why it matters
    At |x| = 6 a sigmoid passes on 1 % of what it passes on at 0. A saturated layer hardly learns, and what lies below it
    learns less still.
How it decides
    An entry is saturated if its slope is below 1 % of the largest possible (|x| > 6 for a sigmoid, 3 for a tanh). More than
    half of a layer's entries is a warning: inputs of unit size leave fewer than 1 % of them there.
Broken
    layer = nn.Linear(16, 8)
    nn.init.normal_(layer.weight, std=5.0)
Repaired
    layer = nn.Linear(16, 8)
    nn.init.xavier_normal_(layer.weight)
Limits
    The gates inside a fused LSTM or GRU are not seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.flow import NORMS, REARRANGING, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref, op_name

NAME = "saturated-units"
aten = torch.ops.aten
MANY, FLAT = 0.5, 0.01


def check(subject: Subject) -> Outcome:
    """Count the saturated entries behind each layer."""
    flow = Flow(subject.exact, subject.values)
    weights = {node.name for node, _, _ in flow.layers()}
    bent = [node for node in flow.graph.nodes if node.op in (aten.sigmoid.default, aten.tanh.default)]
    bent = [node for node in bent if _maker(node, flow) in weights]
    if not bent:
        return NotRun("no layer is followed by a sigmoid or tanh")
    shares = ((node, float((_slope(node, flow) < FLAT).double().mean())) for node in bent)
    return [_finding(node, share, flow, subject) for node, share in shares if share > MANY]


def _maker(node: Node, flow: Flow) -> str:
    ref = node.arguments["self"]
    return flow.maker(ref, through=REARRANGING | NORMS).name if isinstance(ref, Ref) else ""


def _slope(node: Node, flow: Flow) -> Tensor:
    """The slope as a share of the largest one, which both have at 0."""
    y = flow.value(Ref(node.name))
    return 4 * y * (1 - y) if node.op is aten.sigmoid.default else 1 - y * y


def _finding(node: Node, share: float, flow: Flow, subject: Subject) -> Finding:
    size = float(flow.value(node.arguments["self"]).square().mean().sqrt())
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"{share:.0%} of the entries of this {op_name(node.op)} are saturated: it passes on almost no gradient",
        evidence={"saturated": share, "rms": size},
        rows=(("what enters it", f"{size:.4g}", "root mean square; about 1 is healthy"),),
        notes=("Scale the inputs, or draw smaller initial weights (nn.init.xavier_uniform_), or normalise before it.",),
        reproduce=subject.reproduce(NAME),
    )
