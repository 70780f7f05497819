"""Checks six language models of the installed `transformers` from tiny random configurations; prints findings as JSON.

Run by test_real_faults.py in an environment of its own, with a release that shipped the faults and with the newest.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers as tf  # noqa: E402

import chainrule as cr  # noqa: E402

TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def models() -> dict[str, Any]:
    """name -> (model, batch) of each."""
    decoder = {**TEXT, **DROPOUT, "is_decoder": True}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    return {
        "RoFormer": tf.RoFormerForCausalLM(tf.RoFormerConfig(**decoder, embedding_size=32)),
        "MegatronBert": tf.MegatronBertForCausalLM(tf.MegatronBertConfig(**decoder)),
        "RemBert": tf.RemBertForCausalLM(
            tf.RemBertConfig(**decoder, input_embedding_size=32, output_embedding_size=32)
        ),
        "BigBird": tf.BigBirdForCausalLM(tf.BigBirdConfig(**decoder, attention_type="original_full")),
        "Doge": tf.DogeForCausalLM(tf.DogeConfig(**TEXT, num_key_value_heads=2, head_dim=8)),
        "Git": tf.GitForCausalLM(tf.GitConfig(**TEXT, **DROPOUT, vision_config=vision)),
    }


def batch_of(name: str) -> dict[str, torch.Tensor]:
    """Distinct tokens with their own ids as labels, as the library's causal models take them."""
    ids = torch.stack([torch.randperm(58)[:11] + 3 for _ in range(3)])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    if name == "Git":
        batch["pixel_values"] = torch.randn(3, 3, 16, 16)
    return batch


def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The library's own."""
    value: torch.Tensor = model(**batch).loss
    return value


def main() -> None:
    """One line of JSON."""
    torch.manual_seed(0)
    said = {}
    for name, model in models().items():
        try:
            report = cr.check(cr.Setup(model, loss, [batch_of(name)]), only=("future-leak", "target-alignment"))
            said[name] = [(f.check, f.severity, f.where, f.message) for f in report.findings]
        except Exception as error:
            said[name] = [("not checked", "", "", f"{type(error).__name__}: {error}")]
    json.dump({"transformers": tf.__version__, "findings": said}, sys.stdout)


if __name__ == "__main__":
    main()
