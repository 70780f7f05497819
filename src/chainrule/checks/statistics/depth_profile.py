"""depth-profile: gradients vanish or explode from the last layer down to the first.

What it checks
    How much the loss changes when a layer's weights change by one percent, layer by layer from the input to the loss.
Why it matters
    Where the gradient shrinks tenfold per layer the first layers stand still while the last ones train; where it grows,
    the first layers diverge. Deep sigmoid networks and wrongly scaled weights do this.
How it decides
    s = |gradient| · |weight|, a number without unit that stays level over the depth of a network that scales its signal
    rightly (for a chain of linear and ReLU layers gradient·weight is the same in every layer). A line is fitted through
    log10 s (Theil and Sen's median slope). A change by more than a factor of 1000 over at least 4 layers is a warning, if
    the order of the layers explains it (rank correlation above 0.8).
Broken
    layers = [nn.Sequential(nn.Linear(16, 16), nn.Sigmoid()) for _ in range(10)]
Repaired
    layers = [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(10)]
Limits
    The time steps inside a fused recurrent layer count as one layer. Layers whose gradient is exactly zero are left out.
"""

from __future__ import annotations

import math
from itertools import combinations
from statistics import median

from chainrule.checks.flow import Flow
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node

NAME = "depth-profile"
LAYERS, DECADES, ORDERED = 4, 3.0, 0.8


def check(subject: Subject) -> Outcome:
    """Fit a line through the layers' sensitivities."""
    layers = _sensitivities(subject)
    if len(layers) < LAYERS:
        return NotRun(f"fewer than {LAYERS} layers have a gradient")
    levels = [math.log10(size) for _, _, size in layers]
    slope = median((b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(levels), 2))
    decades = slope * (len(levels) - 1)
    if abs(decades) <= DECADES or abs(_rank_correlation(levels)) < ORDERED:
        return []
    return [_finding(layers, decades, subject)]


def _sensitivities(subject: Subject) -> list[tuple[Node, str, float]]:
    """(layer, weight, |gradient|·|weight|) in the order of forward, each weight once, zero gradients left out."""
    flow = Flow(subject.exact, subject.values)
    found: dict[str, tuple[Node, str, float]] = {}
    for node, _, weight in flow.layers():
        name = flow.parameter(weight)
        gradient = subject.gradients.get(name)
        size = 0.0 if gradient is None else float(gradient.norm() * flow.graph.parameters[name].value.norm())
        if size > 0 and math.isfinite(size):
            found.setdefault(name, (node, name, size))
    return list(found.values())


def _rank_correlation(levels: list[float]) -> float:
    """Spearman's: the correlation of the ranks with the order."""
    order = sorted(range(len(levels)), key=levels.__getitem__)
    ranks = {index: rank for rank, index in enumerate(order)}
    n = len(levels)
    return 1 - 6 * sum((index - ranks[index]) ** 2 for index in range(n)) / (n * (n * n - 1))


def _finding(layers: list[tuple[Node, str, float]], decades: float, subject: Subject) -> Finding:
    (node, first, low), (_, last, high) = layers[0], layers[-1]
    vanish = decades > 0
    return Finding(
        check=NAME,
        severity="warning",
        where=first,
        source=line_of(node.source),
        message=f"the gradient {'vanishes' if vanish else 'explodes'} on its way down: {abs(decades):.1f} powers of ten over "
        f"{len(layers)} layers",
        evidence={"decades": decades, "profile": [(name, size) for _, name, size in layers]},
        rows=(
            ("first layer", f"{low:.2e}", f"|gradient|·|weight| of {first}"),
            ("last layer", f"{high:.2e}", f"of {last}"),
        ),
        notes=(
            "Use activations with slope 1 (ReLU, GELU) in place of sigmoids, weights of variance 2/fan_in, residual "
            "connections, or a normalisation in every layer.",
        ),
        reproduce=subject.reproduce(NAME),
    )
