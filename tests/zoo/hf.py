"""Healthy models of the `transformers` library: tiny random configurations, each with its usual task and loss, offline.

All are in train mode as they would be trained; dropout stays as the configuration has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers as tf
from torch import Tensor, nn

from zoo.case import Built, ZooModel

Batch = dict[str, Tensor]
Task = Callable[[nn.Module], Batch]

# Sizes by the names that most configurations share; `layers` and `heads` differ, so each model gives its own.
TEXT: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEEP: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32}
GROUPED: dict[str, Any] = TEXT | DEEP | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}


def own_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the library's model returns when it is given labels."""
    return model(**batch).loss


def causal_task(model: nn.Module) -> Batch:
    """Next token; the second row is padded on the right and its padding left out of the loss."""
    ids_BT = torch.randint(3, 64, (2, 10))
    mask_BT = torch.ones_like(ids_BT)
    ids_BT[1, 7:], mask_BT[1, 7:] = 0, 0
    return {"input_ids": ids_BT, "attention_mask": mask_BT, "labels": ids_BT.masked_fill(mask_BT == 0, -100)}


def masked_task(model: nn.Module) -> Batch:
    """Masked language modelling: labels at three positions of each row."""
    batch = causal_task(model)
    labels_BT = torch.full_like(batch["labels"], -100)
    labels_BT[:, [1, 3, 5]] = batch["input_ids"][:, [1, 3, 5]]
    return batch | {"labels": labels_BT}


def translation_task(model: nn.Module) -> Batch:
    return causal_task(model) | {"labels": torch.randint(3, 64, (2, 6))}


def text_label_task(model: nn.Module) -> Batch:
    return causal_task(model) | {"labels": torch.randint(3, (2,))}


def image_task(model: nn.Module) -> Batch:
    return {"pixel_values": torch.randn(3, 3, 32, 32), "labels": torch.randint(3, (3,))}


def hf(name: str, model: type, config: Callable[..., Any], task: Task, double: bool = True, **sizes: Any) -> ZooModel:
    """One model of the library: class, configuration class, task, and the sizes of the configuration."""

    def make() -> Built:
        built = model(config(**sizes)).train()
        return built, own_loss, task(built)

    return ZooModel(f"hf_{name}", make, double=double)


def causal_models() -> tuple[ZooModel, ...]:
    neox = TEXT | DEEP | {"intermediate_size": 64}
    gpt2 = {"vocab_size": 64, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    gemma = GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 4}
    expert = GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True}
    opt = TEXT | DEEP | {"ffn_dim": 64, "word_embed_proj_dim": 32}
    mamba = TEXT | {"state_size": 4, "num_hidden_layers": 2, "conv_kernel": 3}
    return (
        hf("gpt2", tf.GPT2LMHeadModel, tf.GPT2Config, causal_task, **gpt2, bos_token_id=1, eos_token_id=2),
        hf("llama", tf.LlamaForCausalLM, tf.LlamaConfig, causal_task, **GROUPED),
        hf("mistral", tf.MistralForCausalLM, tf.MistralConfig, causal_task, **GROUPED, sliding_window=4),
        hf("qwen3", tf.Qwen3ForCausalLM, tf.Qwen3Config, causal_task, **GROUPED),
        hf("phi3", tf.Phi3ForCausalLM, tf.Phi3Config, causal_task, **GROUPED),
        hf("gemma2", tf.Gemma2ForCausalLM, tf.Gemma2Config, causal_task, **gemma),
        hf("olmo2", tf.Olmo2ForCausalLM, tf.Olmo2Config, causal_task, **GROUPED),
        hf("gpt_neox", tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig, causal_task, **neox),
        hf("opt", tf.OPTForCausalLM, tf.OPTConfig, causal_task, **opt),
        hf("bloom", tf.BloomForCausalLM, tf.BloomConfig, causal_task, **TEXT, n_layer=2, n_head=4),
        hf("mixtral", tf.MixtralForCausalLM, tf.MixtralConfig, causal_task, double=False, **expert),
        hf("mamba", tf.MambaForCausalLM, tf.MambaConfig, causal_task, **mamba),
    )


def further_causal_models() -> tuple[ZooModel, ...]:
    gemma = GROUPED | {"query_pre_attn_scalar": 8, "sliding_window": 4}
    expert = GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    mamba = TEXT | {"state_size": 4, "num_hidden_layers": 2, "conv_kernel": 3, "chunk_size": 4, "n_groups": 1}
    rwkv = TEXT | {"attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 32}
    mpt = {"vocab_size": 64, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32, "expansion_ratio": 2}
    return (
        hf("qwen2", tf.Qwen2ForCausalLM, tf.Qwen2Config, causal_task, **GROUPED),
        hf("gemma3", tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, causal_task, **gemma),
        hf("smollm3", tf.SmolLM3ForCausalLM, tf.SmolLM3Config, causal_task, **GROUPED),
        hf("granite", tf.GraniteForCausalLM, tf.GraniteConfig, causal_task, **GROUPED),
        hf("stablelm", tf.StableLmForCausalLM, tf.StableLmConfig, causal_task, **GROUPED),
        hf("starcoder2", tf.Starcoder2ForCausalLM, tf.Starcoder2Config, causal_task, **GROUPED),
        hf("cohere", tf.CohereForCausalLM, tf.CohereConfig, causal_task, **GROUPED),
        hf("qwen3_moe", tf.Qwen3MoeForCausalLM, tf.Qwen3MoeConfig, causal_task, double=False, **expert),
        hf("olmoe", tf.OlmoeForCausalLM, tf.OlmoeConfig, causal_task, double=False, **expert),
        hf("mpt", tf.MptForCausalLM, tf.MptConfig, causal_task, **mpt),
        hf("mamba2", tf.Mamba2ForCausalLM, tf.Mamba2Config, causal_task, **mamba, num_heads=8, head_dim=8),
        hf("rwkv", tf.RwkvForCausalLM, tf.RwkvConfig, causal_task, **rwkv),
    )


def text_models() -> tuple[ZooModel, ...]:
    bert = TEXT | DEEP | {"intermediate_size": 64}
    distil = {"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "pad_token_id": 0}
    electra = bert | {"embedding_size": 16, "num_labels": 3}
    t5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    bart = {"vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    special = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
    return (
        hf("bert", tf.BertForMaskedLM, tf.BertConfig, masked_task, **bert),
        hf("roberta", tf.RobertaForMaskedLM, tf.RobertaConfig, masked_task, **bert),
        hf("distilbert", tf.DistilBertForMaskedLM, tf.DistilBertConfig, masked_task, **distil),
        hf("electra", tf.ElectraForSequenceClassification, tf.ElectraConfig, text_label_task, **electra),
        hf("t5", tf.T5ForConditionalGeneration, tf.T5Config, translation_task, **t5, **special),
        hf("bart", tf.BartForConditionalGeneration, tf.BartConfig, translation_task, **bart, **heads, **special),
    )


def further_text_models() -> tuple[ZooModel, ...]:
    bert = TEXT | DEEP | {"intermediate_size": 64}
    labels = bert | {"num_labels": 3}
    modern = bert | {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}
    relative = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"]}
    return (
        hf("bert_label", tf.BertForSequenceClassification, tf.BertConfig, text_label_task, **labels),
        hf("modernbert", tf.ModernBertForMaskedLM, tf.ModernBertConfig, masked_task, **modern),
        hf("albert", tf.AlbertForMaskedLM, tf.AlbertConfig, masked_task, **bert, embedding_size=16),
        hf("deberta_v2", tf.DebertaV2ForMaskedLM, tf.DebertaV2Config, masked_task, **bert, **relative),
    )


def image_models() -> tuple[ZooModel, ...]:
    vit = DEEP | {"hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_labels": 3}
    vit.pop("max_position_embeddings")
    resnet = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic", "num_labels": 3}
    convnext = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "num_labels": 3, "drop_path_rate": 0.1}
    swin = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4}
    return (
        hf("vit", tf.ViTForImageClassification, tf.ViTConfig, image_task, **vit),
        hf("resnet", tf.ResNetForImageClassification, tf.ResNetConfig, image_task, **resnet),
        hf("convnext", tf.ConvNextForImageClassification, tf.ConvNextConfig, image_task, **convnext),
        hf("swin", tf.SwinForImageClassification, tf.SwinConfig, image_task, **swin, num_labels=3),
    )


HF: tuple[ZooModel, ...] = (*causal_models(), *text_models(), *image_models())
# Close relatives of those above: checked for false alarms, and not entry by entry, which would say little for its time.
FURTHER: tuple[ZooModel, ...] = (*further_causal_models(), *further_text_models())
