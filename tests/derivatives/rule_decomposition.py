"""The oracle without autograd or differences: a composite's rule against our own rules on its decomposition."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from chainrule.derivatives import FLAT, RULES
from chainrule.derivatives.rule import Rule, call_by_name
from chainrule.graph import bind_arguments
from derivatives import rule_runs as runs
from derivatives.rule_samples import Sample, seed

aten = torch.ops.aten
NOT_COMPARED = {
    aten.embedding_bag.padding_idx: "its part _embedding_bag stands below the level of our graphs and has no rule",
    aten.cdist.default: "its part _cdist_forward stands below the level of our graphs and has no rule",
    aten.bilinear.default: "its part _trilinear stands below the level of our graphs and has no rule",
    aten.instance_norm.default: "its parts write the running statistics in place",
    aten.group_norm.default: "its parts address the storage by strides",
    aten.native_batch_norm.default: "PyTorch's table leaves it whole",
    aten._scaled_dot_product_flash_attention_for_cpu.default: "the table's second output is another: the weights",
    aten.index_fill.int_Tensor: "index_put, its part, has PyTorch's gradient, which counts a repeated index repeatedly",
}


def is_composite(op: OpOverload) -> bool:
    """Whether PyTorch can take the op apart, into ops that have rules."""
    return op not in NOT_COMPARED and (op in _table() or op._can_decompose())


def agrees_with_its_decomposition(rule: Rule, samples: list[Sample]) -> None:
    """vjp = the chain rule through the ops that PyTorch decomposes the op to, each by its own rule; kinks left out."""
    smooth = [sample for sample in samples if not _has_kink(rule, sample)]
    compared = [_compare(rule, sample) for sample in runs.spread(rule, smooth, 2)]
    assert any(compared), f"{rule.op}: no decomposition can be used; say why in NOT_COMPARED"


def _compare(rule: Rule, sample: Sample) -> bool:
    """Whether the decomposition could be used: not if it writes in place, is another function, or makes a nan."""
    moving = runs.floats(rule, sample)
    parts = _decomposed(sample, moving)
    if any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in parts.graph.nodes):
        return False
    y, g = runs.evaluate(rule, sample)
    if not _is_same(y, parts(*runs.tensors(moving))):  # seen: multilabel_margin_loss, where targets end early
        return False
    expected = _through(parts, rule.op, moving, g)
    if not all(
        item.isfinite().all() for item in runs.tensors(expected)
    ):  # 0 · nan of a branch that where does not take
        return False
    for name, value in runs.gradients(rule, sample, g, y).items():
        runs.assert_close(expected[name], value, f"{sample}: dL/d{name} differs from its decomposition's", unit=g)
    return True


def _is_same(y: Any, of_parts: Any) -> bool:
    pairs = zip(runs.tensors(y), runs.tensors(of_parts), strict=True)
    return all(one.shape == two.shape and torch.allclose(one, two, equal_nan=True) for one, two in pairs)


def _has_kink(rule: Rule, sample: Sample) -> bool:
    return rule.kink is not None and bool(call_by_name(rule.kink, sample.arguments).any())


def _through(parts: fx.GraphModule, op: OpOverload, moving: dict[str, Any], g: Any) -> dict[str, Any]:
    """Gradients of the arguments by reverse mode over the decomposed op."""
    inputs = runs.tensors(moving)
    assert all(node.target is not op for node in parts.graph.nodes), f"{op} was not taken apart"
    recorder = _Recorder(parts)
    seed()
    with torch.no_grad(), runs.watched():
        recorder.run(*inputs)
        found = _reverse(parts.graph, recorder.values, g)
    by_input = {id(tensor): d for tensor, d in zip(inputs, found, strict=True)}
    return {name: runs.each(lambda t: by_input[id(t)], value) for name, value in moving.items()}


def _decomposed(sample: Sample, moving: dict[str, Any]) -> fx.GraphModule:
    """Traced with real tensors, so that what an op asks of its input (are there zeros?) is answered."""

    def op(*tensors: Tensor) -> Any:
        rest = iter(tensors)
        arguments = {name: runs.each(lambda _: next(rest), value) for name, value in moving.items()}
        return sample.op(**{**sample.arguments, **arguments})

    with torch.no_grad():
        parts = make_fx(_functional(op), decomposition_table=_table())(*runs.tensors(moving))
        return make_fx(_functional(parts))(*runs.tensors(moving))  # again, for what PyTorch's table writes in place


def _functional(op: Callable[..., Any]) -> Callable[..., Any]:
    return torch.func.functionalize(op, remove="mutations_and_views")


class _Recorder(fx.Interpreter):
    """Runs the graph and keeps every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, node: fx.Node) -> Any:
        self.values[node] = super().run_node(node)
        return self.values[node]


def _reverse(graph: fx.Graph, values: dict[fx.Node, Any], g: Any) -> list[Tensor]:
    (output,) = graph.output_node().args
    adjoints: dict[fx.Node, Any] = {}
    _spread_over(output, g, adjoints)
    moving = _moving(graph)
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node not in adjoints or node not in moving:
            continue
        if node.target is operator.getitem:
            whole, index = node.args
            parts = {index: adjoints[node]}
            adjoints[whole] = {**adjoints.get(whole, {}), **parts}
        elif _without_copy(node.target) not in FLAT:
            _pull_back(node, values, adjoints)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return [adjoints.get(node, torch.zeros_like(values[node])) for node in inputs]


def _moving(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on an input."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or found & set(node.all_input_nodes):
            found.add(node)
    return found


def _pull_back(node: fx.Node, values: dict[fx.Node, Any], adjoints: dict[fx.Node, Any]) -> None:
    op = _without_copy(node.target)
    rule = RULES.get(op)
    assert rule is not None, f"no rule for {op}, which stands in a decomposition"
    symbols = bind_arguments(op, node.args, node.kwargs)
    arguments = fx.node.map_arg(symbols, values.__getitem__)
    y, g = values[node], adjoints[node]
    if isinstance(y, (tuple, list)):
        y = tuple(y)
        g = tuple(g.get(i, torch.zeros_like(out)) if isinstance(out, Tensor) else None for i, out in enumerate(y))
    for name, gradient in rule.gradients(g, y, arguments).items():
        _spread_over(symbols[name], gradient, adjoints, values)


def _without_copy(op: OpOverload) -> OpOverload:
    """The view of which this op is the copy that functionalization puts in its place (view_copy -> view)."""
    name, overload = str(op).split(".")[1:]
    packet = getattr(aten, name.removesuffix("_copy"), None) if name.endswith("_copy") and op not in RULES else None
    return op if packet is None else getattr(packet, overload)


def _spread_over(symbol: Any, gradient: Any, adjoints: dict[fx.Node, Any], values: Any = None) -> None:
    if isinstance(symbol, (tuple, list)):
        for one, part in zip(symbol, gradient, strict=True):
            _spread_over(one, part, adjoints, values)
    elif isinstance(symbol, fx.Node) and gradient is not None:
        if values is not None and isinstance(values[symbol], Tensor):
            gradient = gradient.sum_to_size(values[symbol].shape).to(values[symbol].dtype)
        adjoints[symbol] = adjoints[symbol] + gradient if symbol in adjoints else gradient


@cache
def _table() -> dict[OpOverload, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = get_decompositions(
        [aten.native_group_norm, aten.upsample_bicubic2d, aten.upsample_trilinear3d]
    )
    return {**core_aten_decompositions(), **table}
