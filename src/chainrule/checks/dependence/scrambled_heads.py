"""scrambled-heads: a view where a transpose was meant mixes tokens into the heads of an attention.

What it checks
    Queries, keys and values of every attention: a head's row holds features of one token, and all heads hold the same
    token at the same position. What attention returns: a row of the next layer's input holds one token again.
Why it matters
    x.view(B, H, T, K) of (B, T, H * K) has the right shape and the wrong contents: position 3 of a head is a piece of
    another token. Training works around it, worse; in a causal model it leaks the future as well.
How it decides
    Each linear layer's outputs are numbered by token, and the numbers are sent through the same views, splits and
    transposes as the values, up to the attention. Rows, or columns (attention over channels), must carry one number, and
    some axis the same numbers throughout: the heads. No tolerance is involved. A warning, since a design may mix tokens.
Broken
    q = self.query(x).view(B, H, T, K)
Repaired
    q = self.query(x).view(B, T, H, K).transpose(1, 2)
Limits
    Only attention after a linear layer with nothing in between but changes of shape and formulas on single entries.
"""

from __future__ import annotations

from chainrule.autodiff.evaluate import value_of
from chainrule.checks.dependence.token_maps import Maps, attentions, follow, heads_axis, is_whole, numbered, read
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.graph import Graph, Node, Ref, Spec, op_name

NAME = "scrambled-heads"
_VIEWS = ("view", "reshape", "unsafe_view", "unflatten", "flatten")
_LAYERS = ("linear", "addmm", "mm")


def check(subject: Subject) -> Outcome:
    """One finding for each attention whose heads hold mixed tokens, or whose heads are put together wrongly."""
    graph = subject.graph
    sinks = {node.name: node for node in attentions(graph)}
    if not sinks:
        return NotRun("the graph has no attention")
    maps, merged, findings = Maps(), Maps(), list[Finding]()
    for node in graph.nodes:
        if node.name in sinks:
            wrong = [
                ref for ref in read(node) if ref in maps and maps[ref].dim() >= 4 and heads_axis(maps[ref]) is None
            ]
            findings += [_finding(subject, node, wrong[0], "queries, keys or values")] if wrong else []
        if op_name(node.op) in _LAYERS:
            mixed = [ref for ref in node.refs() if ref in merged and not is_whole(merged[ref])]
            findings += [_finding(subject, node, mixed[0], "the heads that are put together")] if mixed else []
        else:
            follow(node, merged, subject.values)
        follow(node, maps, subject.values)
        _returned(node, maps, merged)
    return findings


def _returned(node: Node, maps: Maps, merged: Maps) -> None:
    """Number what a fused attention returns: the token of each row, the same in all heads."""
    queries = node.arguments.get("query")
    if op_name(node.op) == "scaled_dot_product_attention" and isinstance(queries, Ref) and queries in maps:
        axis = heads_axis(maps[queries])
        if axis is not None and axis != -1 and isinstance(node.spec, Spec):
            merged[Ref(node.name)] = numbered(node.spec.shape, axis, -1)


def _finding(subject: Subject, node: Node, ref: Ref, what: str) -> Finding:
    culprit = _view_behind(subject.graph, ref) or node
    shape = tuple(value_of(ref, subject.values).shape)
    return Finding(
        check=NAME,
        severity="warning",
        where=culprit.where,
        source=line_of(culprit.source),
        message=f"{what} of shape {shape} hold mixed tokens: a view where a transpose was meant",
        evidence={"node": culprit.name, "shape": str(shape), "attention": node.where},
        notes=(
            "A view keeps the order in memory. To split D into heads: view(B, T, H, K).transpose(1, 2); to put them together: "
            "transpose(1, 2).reshape(B, T, H * K).",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _view_behind(graph: Graph, ref: Ref) -> Node | None:
    """The last view or reshape before the value."""
    nodes = {node.name: node for node in graph.nodes}
    node = nodes.get(ref.name)
    while node is not None and op_name(node.op) not in (*_VIEWS, *_LAYERS):
        node = next((nodes[other.name] for other in node.refs() if other.name in nodes), None)
    return node if node is not None and op_name(node.op) in _VIEWS else None
