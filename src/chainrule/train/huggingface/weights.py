"""The weights of a Transformer under our names and under those of transformers' GPT2LMHeadModel and LlamaForCausalLM.

Llama's differ in name alone. GPT-2 keeps each matrix transposed (its Conv1D computes x W + b with W of inputs x outputs)
and query, key and value as one matrix, side by side. A tied head is stored once, as the token embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from chainrule.errors import ConfigError
from chainrule.train.config_model import Family

Weights = Mapping[str, Tensor]

GPT2 = MappingProxyType(
    {
        "tokens": "transformer.wte",
        "positions": "transformer.wpe",
        "attention_norm": "ln_1",
        "attention.output": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.expand": "mlp.c_fc",
        "mlp.contract": "mlp.c_proj",
        "norm": "transformer.ln_f",
        "head": "lm_head",
    }
)
LLAMA = MappingProxyType(
    {
        "tokens": "model.embed_tokens",
        "attention_norm": "input_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "mlp.gate": "mlp.gate_proj",
        "mlp.expand": "mlp.up_proj",
        "mlp.contract": "mlp.down_proj",
        "norm": "model.norm",
        "head": "lm_head",
    }
)
CONV1D = ("attention.output.weight", "mlp.expand.weight", "mlp.contract.weight")
PARTS = ("query", "key", "value")
# Not weights: the causal mask and the angles that older versions saved with them.
IGNORED = re.compile(r".*\.attn\.(bias|masked_bias)|.*rotary_emb\.inv_freq")


def to_theirs(ours: Weights, family: Family) -> dict[str, Tensor]:
    """Our weights under the names, and in the form, that transformers expects."""
    if family == "llama":
        return {_renamed(name, LLAMA, "blocks.", "model.layers."): tensor for name, tensor in ours.items()}
    ours = _with_zero_biases(ours)
    merged: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        if any(f".attention.{part}." in name for part in PARTS):
            continue
        tensor = tensor.T if name.endswith(CONV1D) else tensor
        merged[_renamed(name, GPT2, "blocks.", "transformer.h.")] = tensor
    for block in sorted({name.split(".")[1] for name in ours if name.startswith("blocks.")}, key=int):
        for kind in ("weight", "bias"):
            parts = [ours[f"blocks.{block}.attention.{part}.{kind}"] for part in PARTS]
            merged[f"transformer.h.{block}.attn.c_attn.{kind}"] = torch.cat(parts).t()  # a bias has no other side
    return {name: tensor.contiguous() for name, tensor in merged.items()}


def to_ours(theirs: Weights, family: Family) -> dict[str, Tensor]:
    """transformers' weights under our names, in float32. Raises ConfigError for a name that no such model has."""
    theirs = {name: tensor.float() for name, tensor in theirs.items() if not IGNORED.fullmatch(name)}
    if family == "llama":
        names = {theirs: ours for ours, theirs in LLAMA.items()}
        return {_known(name, names, "model.layers.", "blocks."): tensor for name, tensor in theirs.items()}
    names = {theirs: ours for ours, theirs in GPT2.items()}
    ours: dict[str, Tensor] = {}
    for full_name, tensor in theirs.items():
        name = full_name if full_name.startswith(("transformer.", "lm_head.")) else f"transformer.{full_name}"
        if found := re.fullmatch(r"transformer\.h\.(\d+)\.attn\.c_attn\.(weight|bias)", name):
            for part, piece in zip(PARTS, tensor.t().chunk(3), strict=True):
                ours[f"blocks.{found[1]}.attention.{part}.{found[2]}"] = piece.contiguous()
            continue
        own = _known(name, names, "transformer.h.", "blocks.")
        ours[own] = tensor.T.contiguous() if own.endswith(CONV1D) else tensor
    return ours


def _with_zero_biases(ours: Weights) -> dict[str, Tensor]:
    """GPT-2 has biases everywhere: a model without is the same with zeros."""
    whole = dict(ours)
    for name, tensor in ours.items():
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".weight") and name not in ("tokens.weight", "positions.weight", "head.weight"):
            whole.setdefault(bias, torch.zeros(tensor.shape[0], dtype=tensor.dtype))
    return whole


def _renamed(name: str, names: Mapping[str, str], before: str, after: str) -> str:
    """blocks.0.mlp.expand.weight -> transformer.h.0.mlp.c_fc.weight."""
    module, _, kind = name.rpartition(".")
    if not module.startswith(before):
        return f"{names[module]}.{kind}"
    number, _, part = module.removeprefix(before).partition(".")
    return f"{after}{number}.{names[part]}.{kind}"


def _known(name: str, names: Mapping[str, str], before: str, after: str) -> str:
    try:
        return _renamed(name, names, before, after)
    except KeyError:
        raise ConfigError(f"the weight {name} is none of such a model's; it cannot be represented here") from None
