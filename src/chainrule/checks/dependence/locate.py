"""Which module lets something through: its inputs at the places that are kept are the same, its outputs there are not."""

from __future__ import annotations

from chainrule.checks.copies import Copies
from chainrule.checks.dependence.taps import Alter, run
from chainrule.checks.subject import line_of
from chainrule.checks.watching import ROUNDING as ROUNDING
from chainrule.checks.watching import Part, first_difference
from chainrule.finding import Line
from chainrule.graph import Graph, op_name

# Formulas that read other positions or examples, those that are most often at fault first.
_MIXING = (
    "scaled_dot_product_attention",
    "softmax",
    "convolution",
    "conv1d",
    "conv2d",
    "group_norm",
    "native_group_norm",
    "lstm",
    "gru",
    "flip",
    "roll",
    "cumsum",
    "bmm",
    "matmul",
    "mean",
    "sum",
    "reshape",
    "view",
    "transpose",
    "permute",
    "select",
    "index",
)


def leaking_module(copies: Copies, alter: Alter, part: Part) -> str | None:
    """Path of the innermost module that is first to pass on what `alter` changes outside `part`; None if none is."""
    return first_difference(copies, lambda: run(copies), lambda: run(copies, alter), part, rounding=ROUNDING)


def mixing_line(graph: Graph, module: str) -> Line | None:
    """The line in the module at which positions or examples are mixed; None if no formula of it does that."""
    inside = [node for node in graph.nodes if node.module == module]
    inside = inside or [node for node in graph.nodes if node.module.startswith(f"{module}.") or not module]
    for name in _MIXING:
        node = next((node for node in inside if op_name(node.op) == name and node.source), None)
        if node is not None:
            return line_of(node.source)
    return None
