"""What an exported program loses when it is decomposed, seen to first: lines of blocks, in-place changes, dropout.

Works on the training graph of `torch.export`, in place, before `run_decompositions({})`:

- the nodes of a no_grad or autocast block keep their own source lines: it runs by an interpreter that hands them on.
- an in-place change in a no_grad block is marked as one, since afterwards it is an op like any other.
- attention with dropout hides its mask in one op: it becomes softmax, dropout and two products.
- dropout in eval mode, and detaching the fresh copy of a constant, are the identity and disappear.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from chainrule.capture.hidden import hides_attention_mask, off_sentence
from chainrule.capture.nodes import IN_PLACE, NO_GRAD_BLOCK, ROOTS, is_random, stack_of
from chainrule.graph import bind_arguments, op_name

aten = torch.ops.aten
_SET_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled  # (enabled, block, *inputs)
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast  # (device type, dtype, enabled, cache enabled, block, *inputs)
_BLOCK_AT = {_SET_GRAD: 1, _AUTOCAST: 4}
_DROPOUTS = frozenset({aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default})


def prepare(module: fx.GraphModule) -> list[str]:
    """All passes, blocks included. Returns what had to be left out, in sentences."""
    notes: list[str] = []
    for node in list(module.graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default and _arguments(node)["dropout_p"] > 0:
            notes += _expose_attention(node)
        elif _is_identity(node):
            node.replace_all_uses_with(cast(fx.Node, node.args[0]))
            module.graph.erase_node(node)
        elif node.target in _BLOCK_AT:
            notes += _interpret_block(module, str(cast(fx.Node, node.args[_BLOCK_AT[node.target]]).target))
        elif _is_in_place(node) and node.stack_trace:
            node.stack_trace = node.stack_trace.replace(f"in {NO_GRAD_BLOCK}", f"in {IN_PLACE}")
    return notes


def count_draws(module: fx.GraphModule) -> int:
    """How many random ops a program runs, blocks included; decomposing drops the unused ones, eager does not."""
    return sum(draws_of(part.graph) for part in module.modules() if isinstance(part, fx.GraphModule))


def draws_of(graph: fx.Graph) -> int:
    """How many random ops a graph has."""
    return sum(map(_is_draw, graph.nodes))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query keyᵀ · scale + mask), dropped out, times value: attention by its textbook steps.

    query (..., T, E), key (..., S, E), value (..., S, V); scale is 1 / sqrt(E) unless given. As in PyTorch both factors
    are scaled by its root, a row in which the mask leaves nothing is zero, and half precision is computed in float32.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):
        narrow = torch.get_autocast_dtype(device)
        query, key, value = query.to(narrow), key.to(narrow), value.to(narrow)
    with torch.autocast(device, enabled=False):
        if query.dtype not in (torch.bfloat16, torch.float16):
            return _attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        wide = (query.float(), key.float(), value.float())
        return _attention(*wide, attn_mask, dropout_p, is_causal, scale, enable_gqa).to(query.dtype)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    root = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = (query * root) @ (key * root).transpose(-2, -1)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        weights = torch.softmax(scores.masked_fill(later, -math.inf), -1)
    elif attn_mask is None:
        weights = torch.softmax(scores, -1)
    elif attn_mask.dtype is torch.bool:
        weights = torch._safe_softmax(scores.masked_fill(~attn_mask, -math.inf), -1)
    else:
        weights = torch._safe_softmax(scores + attn_mask, -1)
    return torch.dropout(weights, dropout_p, True) @ value


class Interpreted(nn.Module):
    """A block that runs node by node, so that what is traced meanwhile keeps each node's source line and module."""

    def __init__(self, block: fx.GraphModule) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Any) -> Any:
        """The block's outputs."""
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(self.block).run(*inputs)


def _expose_attention(node: fx.Node) -> list[str]:
    """Attention by its steps; where a fused kernel would draw the mask by itself, as it is, its dropout off."""
    arguments = _arguments(node)
    if hides_attention_mask(arguments["query"].meta["val"].device):
        node.args, node.kwargs = (), {**arguments, "dropout_p": 0.0}
        stack = stack_of(node.meta.get("nn_module_stack", {}), ROOTS)
        where = ".".join(
            part for part in (stack[-1][0] if stack else "", op_name(cast(OpOverload, node.target))) if part
        )
        return [off_sentence(where, arguments["dropout_p"])]
    node.target = attention
    return []


def _interpret_block(module: fx.GraphModule, name: str) -> list[str]:
    block = getattr(module, name)
    if isinstance(block, Interpreted):  # it belongs to several nodes
        return []
    setattr(module, name, Interpreted(block))
    return prepare(block)


def _is_draw(node: fx.Node) -> bool:
    return node.target is attention or (isinstance(node.target, OpOverload) and is_random(node.target))


def _is_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _arguments(node: fx.Node) -> dict[str, Any]:
    return bind_arguments(cast(OpOverload, node.target), tuple(node.args), node.kwargs)


def _is_identity(node: fx.Node) -> bool:
    if node.target is aten.detach_.default:
        return cast(fx.Node, node.args[0]).target is aten.lift_fresh_copy.default
    if node.target in _DROPOUTS:
        arguments = _arguments(node)
        return not arguments["train"] or arguments["p"] == 0
    return False
