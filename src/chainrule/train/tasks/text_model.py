"""The Transformer that a run's settings describe: new, or with the weights of a folder in Hugging Face's format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from chainrule.errors import ConfigError
from chainrule.models.activations import ACTIVATIONS
from chainrule.models.initialisation import INITIALISERS
from chainrule.models.normalization import NORMS
from chainrule.models.transformer import Transformer
from chainrule.train.config import ModelConfig
from chainrule.train.huggingface.folder import read_architecture, read_weights


def settled_model(model: ModelConfig) -> ModelConfig:
    """The model with nothing left open: as its family has it, or as the folder `model.pretrained` says.

    Raises ConfigError for a setting that contradicts the folder; `dropout` and a shorter `context` may be chosen.
    """
    if not model.pretrained:
        return model.resolved()
    folder = Path(model.pretrained).expanduser().absolute()
    theirs, _ = read_architecture(folder)
    default = ModelConfig()
    given = {name: value for name, value in vars(model).items() if value != getattr(default, name)}
    context = given.pop("context", theirs.context)
    free = {name: given.pop(name) for name in ("pretrained", "dropout") if name in given}
    wrong = [
        f"model.{name} is {value!r}, not {getattr(theirs, name)!r}"
        for name, value in given.items()
        if value != getattr(theirs, name)
    ]
    if context > theirs.context:
        wrong.append(f"model.context is {context}, more than {theirs.context}")
    if wrong:
        raise ConfigError(f"{folder} holds another model: {'; '.join(wrong)}; leave them out")
    return replace(theirs, **(free | {"pretrained": str(folder), "context": context}))


def build_model(model: ModelConfig, vocabulary: int, seed: int) -> Transformer:
    """The Transformer, its weights drawn by a generator of its own."""
    model = model.resolved()
    assert model.positions != "auto"
    return Transformer(
        vocabulary=vocabulary,
        layers=model.layers,
        heads=model.heads,
        key_value_heads=model.key_value_heads or None,
        hidden=model.hidden,
        mlp_width=model.mlp_width or None,
        context=model.context,
        positions=model.positions,
        rotary_base=model.rotary_base,
        norm=NORMS[model.norm],
        epsilon=model.epsilon,
        gated=model.mlp == "gated",
        activation=ACTIVATIONS[model.activation],
        bias=model.bias == "yes",
        tied=model.tied,
        dropout=model.dropout,
        initialiser=INITIALISERS[model.initialisation],
        generator=torch.Generator().manual_seed(seed),
    )


def pretrained_model(model: ModelConfig, vocabulary: int) -> Transformer:
    """The model of the folder `model.pretrained`, whose vocabulary may be larger than the tokenizer's `vocabulary`.

    Raises ConfigError if the folder does not hold the weights of such a model.
    """
    folder = Path(model.pretrained).expanduser()
    _, known = read_architecture(folder)
    if vocabulary > known:
        raise ConfigError(
            f"{folder} has a vocabulary of {known:,} tokens and the tokenizer one of {vocabulary:,}: take the model's own "
            "tokenizer, --data.tokenizer FOLDER/tokenizer.json"
        )
    made = build_model(model, known, seed=0)
    load_weights(made, read_weights(folder, model), str(folder))
    return made


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Copy weights by name. Raises ConfigError, naming what is missing, left over or of another shape."""
    own = dict(model.named_parameters())
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} belongs to no part of the model" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        raise ConfigError(f"the weights of {where} do not fit its config.json: {'; '.join(problems[:3])}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def in_words(model: ModelConfig) -> str:
    """The model for the reader of a log."""
    model = model.resolved()
    shared = f" sharing {model.key_value_heads}" if model.key_value_heads not in (0, model.heads) else ""
    heads = f"{model.heads} heads{shared}"
    parts = f"{model.positions} positions, {model.norm} norm, {model.mlp} MLP with {model.activation}"
    return f"Transformer, {model.layers} layers, {heads}, {model.hidden} hidden, context {model.context}, {parts}"
