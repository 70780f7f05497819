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
    with torch.autocast("cpu", enabled=False):
        y = second(first(x).float())
Repaired
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = second(first(x))
Limits
    Only layers, not the elementwise ops that autocast leaves in float32 by design.
"""

from __future__ import annotations

import torch

from chainrule.checks.flow import LAYERS, downstream
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Node, Spec

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
    after = {node.name for node in downstream(subject.graph, narrow)}
    return [
        _finding(node, len(narrow), subject)
        for node in wide
        if node.name in after and narrow & {later.name for later in downstream(subject.graph, {node.name})}
    ]


def _dtype(node: Node) -> torch.dtype:
    assert isinstance(node.spec, Spec)
    return node.spec.dtype


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
