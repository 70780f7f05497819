"""autocast-gap: one layer amid low-precision ones runs in float32.

What it checks
    The dtype of every matrix product and convolution: a float32 one that lies between low-precision ones.
Why it matters
    Under autocast all layers of a region are to run in bfloat16 or float16. A layer that silently does not (a custom
    Function or a decorator that switches autocast off) costs twice the memory and up to sixteen times the time.
How it decides
    By the graph: the product is float32, one that it is computed from is low precision, and so is one that is computed from
    it. A warning. Heads and losses in float32 at the end are common and right.
Broken
    y = second(first(x).float()) with autocast(enabled=False) around the second layer
Repaired
    y = second(first(x))
Limits
    Only layers, not the elementwise ops that autocast leaves in float32 by design.
"""

from __future__ import annotations

import torch

from chainrule.checks.flow import LAYERS
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Graph, Node, Spec

NAME = "autocast-gap"
aten = torch.ops.aten
PRODUCTS = frozenset({*LAYERS, aten.bmm.default, aten.baddbmm.default, aten.scaled_dot_product_attention.default})
NARROW = (torch.bfloat16, torch.float16)


def check(subject: Subject) -> Outcome:
    """Look for a float32 product between narrow ones."""
    products = [node for node in subject.graph.nodes if node.op in PRODUCTS and isinstance(node.spec, Spec)]
    narrow = {node.name for node in products if _dtype(node) in NARROW}
    if not narrow:
        return NotRun("no layer runs in low precision")
    wide = [node for node in products if _dtype(node) is torch.float32]
    after = _downstream(subject.graph, narrow)
    return [
        _finding(node, len(narrow), subject)
        for node in wide
        if node.name in after and _downstream(subject.graph, {node.name}) & narrow
    ]


def _dtype(node: Node) -> torch.dtype:
    assert isinstance(node.spec, Spec)
    return node.spec.dtype


def _downstream(graph: Graph, names: set[str]) -> set[str]:
    """The nodes that are computed from one of these."""
    reached: set[str] = set()
    for node in graph.nodes:
        if any(ref.name in names or ref.name in reached for ref in node.refs()):
            reached.add(node.name)
    return reached


def _finding(node: Node, others: int, subject: Subject) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=node.where,
        source=line_of(node.source),
        message=f"this layer runs in float32 between {others} others in low precision",
        evidence={"narrow": others, "function": node.function},
        notes=(
            "If that is not meant, look for autocast(enabled=False), a cast to float, or a custom Function without "
            "torch.amp.custom_fwd.",
        ),
        reproduce=subject.reproduce(NAME),
    )
