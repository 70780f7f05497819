"""The model of a finished or interrupted run, read from its folder: to sample from it, to export it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from tokenizers import Tokenizer

from chainrule.data.tokenizer import load_tokenizer
from chainrule.errors import CheckpointError, ConfigError, DataError
from chainrule.models.transformer import Transformer
from chainrule.train.checkpoint import load_weights
from chainrule.train.config import TrainConfig
from chainrule.train.run_folder import open_run
from chainrule.train.tasks.text_model import build_model


@dataclass(frozen=True)
class LanguageModel:
    """A language model with the tokenizer and the settings that it was trained with; `checkpoint` holds its weights."""

    model: Transformer
    tokenizer: Tokenizer
    config: TrainConfig
    checkpoint: Path


def load_language_model(path: Path) -> LanguageModel:
    """The model of a run folder's newest checkpoint, or of the checkpoint `path`; on the CPU, in evaluation mode.

    Raises CheckpointError if it is damaged, ConfigError if the run is none of text.
    """
    run = open_run(path)
    if run.config.task != "text":
        raise ConfigError(f"{path} is a run of the task {run.config.task!r}; a language model is expected")
    if run.folder is None or run.checkpoint is None:
        raise CheckpointError(f"{path} has no checkpoint yet: train it first")
    with safe_open(run.checkpoint / "model.safetensors", "pt") as file:  # `open_run` has verified it
        tokens_VD = file.get_tensor("tokens.weight")
    try:
        tokenizer = load_tokenizer(run.folder / "tokenizer.json")
    except DataError as error:
        raise CheckpointError(str(error)) from None
    model = build_model(run.config.model, tokens_VD.shape[0], seed=0).to(tokens_VD.dtype)
    load_weights(run.checkpoint, model)
    return LanguageModel(model.eval(), tokenizer, run.config, run.checkpoint)
