"""initial-weights: the first weights are far too large or far too small.

What it checks
    The gain of each layer: the root mean square of its weights times the square root of the inputs of one unit. It is the
    factor by which the layer stretches a signal.
Why it matters
    Gains multiply from layer to layer. Weights drawn from N(0, 1) stretch a signal 28 times at 784 inputs: activations
    saturate and the initial loss is tens of times too large. Gains of a hundredth erase the signal.
How it decides
    PyTorch's own initialisation has gain 0.58, He's 1.41, GPT-2's 0.02 in tiny models 0.1. Above 6 is a warning, unless a
    normalisation follows, which takes the scale away. Below 0.02 is one if two layers in a row have it and nothing
    normalises: a single one, as at the end of a policy or a residual branch, is a known trick. Zeros are left alone.
Broken
    layer = nn.Linear(784, 64)
    nn.init.normal_(layer.weight)
Repaired
    layer = nn.Linear(784, 64)
    nn.init.normal_(layer.weight, std=784**-0.5)
Limits
    Embeddings and recurrent layers are not looked at.
"""

from __future__ import annotations

import math
from itertools import pairwise

from chainrule.checks.flow import NORMS, Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Ref

NAME = "initial-weights"
LARGE, SMALL = 6.0, 0.02


def check(subject: Subject) -> Outcome:
    """Look at the gain of every layer."""
    flow = Flow(subject.exact, subject.values)
    gains: dict[str, tuple[Node, float]] = {}
    for node, _, weight in flow.layers():
        if not _normalised(node, flow):
            gains.setdefault(flow.parameter(weight), (node, _gain(node, weight, flow)))
    if not gains:
        return NotRun("no layer has a weight that nothing normalises")
    layers = [(name, node, gain) for name, (node, gain) in gains.items()]
    large = [layer for layer in layers if layer[2] > LARGE]
    small = [two for one, two in pairwise(layers) if 0 < one[2] < SMALL and 0 < two[2] < SMALL]
    return [_finding(*layer, subject) for layer in (*large, *small)]


def _gain(node: Node, weight: Ref, flow: Flow) -> float:
    value = flow.value(weight)
    outputs = flow.value(Ref(node.name)).shape[1 if "conv" in str(node.op) else -1]
    fan_in = value.numel() / max(outputs, 1)
    return float(value.norm()) * math.sqrt(fan_in / value.numel())


def _normalised(node: Node, flow: Flow) -> bool:
    takers = list(flow.takers(node))
    return bool(takers) and all(taker.op in NORMS for taker in takers)


def _finding(name: str, node: Node, gain: float, subject: Subject) -> Finding:
    word = "large" if gain > LARGE else "small"
    return Finding(
        check=NAME,
        severity="warning",
        where=name,
        source=line_of(node.source),
        message=f"the initial weights are far too {word}: the layer multiplies a signal by {gain:.3g}",
        evidence={"gain": gain},
        rows=(
            ("gain", f"{gain:.4g}", "root mean square of the weights times √(inputs of a unit); 0.5 to 1.5 is usual"),
        ),
        notes=("Draw them with a variance of 1/fan_in to 2/fan_in (nn.init.xavier_uniform_, kaiming_uniform_).",),
        reproduce=subject.reproduce(NAME),
    )
