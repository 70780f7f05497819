"""A folder that transformers' AutoModelForCausalLM and AutoTokenizer load, written; and one of theirs, read.

config.json  model.safetensors  generation_config.json  tokenizer.json  tokenizer_config.json
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from chainrule.data.tokenizer import end_of_text
from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.atomic import read_json, write_folder, write_json, write_text
from chainrule.train.config_model import ModelConfig
from chainrule.train.huggingface import architecture, weights

CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"


def export(target: Path, model: ModelConfig, ours: Mapping[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write a trained model: its weights by our names, its tokenizer. Raises ConfigError if it cannot be represented."""
    if target.exists():
        raise ConfigError(f"{target} exists: take another folder, or remove it first")
    end, mlp_width = end_of_text(tokenizer), ours["blocks.0.mlp.expand.weight"].shape[0]
    settings = architecture.to_theirs(model, ours["tokens.weight"].shape[0], mlp_width, end)
    theirs = weights.to_theirs({name: tensor.detach() for name, tensor in ours.items()}, settings["model_type"])
    settings["dtype"] = str(ours["tokens.weight"].dtype).removeprefix("torch.")
    mark = tokenizer.id_to_token(end)
    write_folder(
        target,
        {
            CONFIG: write_json(settings),
            WEIGHTS: lambda path: save_file(theirs, path, metadata={"format": "pt"}),
            "generation_config.json": write_json({"bos_token_id": end, "eos_token_id": end}),
            TOKENIZER: lambda path: write_text(path, tokenizer.to_str(pretty=True)),
            "tokenizer_config.json": write_json(
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "bos_token": mark,
                    "eos_token": mark,
                    "model_max_length": model.context,
                    "clean_up_tokenization_spaces": False,
                }
            ),
        },
    )


def read_architecture(folder: Path) -> tuple[ModelConfig, int]:
    """The model in a folder, and its vocabulary. Raises ConfigError if there is none that we can represent."""
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is no folder of a model in Hugging Face's format: it has no {CONFIG}")
    settings = _json(folder / CONFIG)
    if not isinstance(settings, dict):
        raise ConfigError(f"{folder / CONFIG} is damaged: an object is expected")
    return architecture.to_ours(settings, str(folder / CONFIG))


def read_weights(folder: Path, model: ModelConfig) -> dict[str, Tensor]:
    """Its weights, by our names, in float32. Raises ConfigError if they are missing or damaged."""
    theirs: dict[str, Tensor] = {}
    for name in _files(folder):
        try:
            theirs |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{folder / name} cannot be read: {error}; weights in the safetensors format are expected"
            ) from None
    ours = weights.to_ours(theirs, model.family)
    if model.tied:
        ours.pop("head.weight", None)
    if "positions.weight" in ours:  # the first `context` of them, if the model is to see less than it could
        ours["positions.weight"] = ours["positions.weight"][: model.context]
    return ours


def _files(folder: Path) -> list[str]:
    """One file of weights, or those of an index."""
    if not (folder / INDEX).is_file():
        return [WEIGHTS]
    index = _json(folder / INDEX)
    try:
        return sorted(set(index["weight_map"].values()))
    except (AttributeError, KeyError, TypeError):
        raise ConfigError(f"{folder / INDEX} is damaged: it has no weight_map") from None


def tokenizer_of(folder: Path) -> Path:
    """The tokenizer of a folder. Raises ConfigError if it has none."""
    if not (folder / TOKENIZER).is_file():
        raise ConfigError(f"{folder} has no {TOKENIZER}: name one with --data.tokenizer")
    return folder / TOKENIZER


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
