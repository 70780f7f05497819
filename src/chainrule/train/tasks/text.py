"""A Transformer language model on text: the next token from those before it; a bigram model is to be beaten."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import nn

from chainrule.data.bigram import bigram_loss, fit_bigram
from chainrule.data.tokenizer import encoded, fingerprint
from chainrule.losses.classification import cross_entropy
from chainrule.models.transformer import Transformer, next_token_logits, next_token_loss
from chainrule.train.chosen_loss import ChosenLoss, choose_loss, of_batch, tried
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch
from chainrule.train.records import Listener
from chainrule.train.sample import continued
from chainrule.train.task import Baseline, Conclusion, Kind, Task, batch_size_of
from chainrule.train.tasks.text_data import Text, describe, load, prepare, save
from chainrule.train.tasks.text_model import build_model, in_words, pretrained_model

PROMPT_TOKENS = 24


def make(config: TrainConfig, data: Text, listener: Listener) -> Task:
    """The task of predicting each next token of `data`."""
    describe(data, listener)
    chosen = choose_loss(config.loss, "text")
    another = chosen.function is not cross_entropy
    if another:
        describe_loss(chosen, data.vocabulary, listener)
    model = first_model(config, data)
    model.recompute = config.loop.recompute
    return Task(
        model=model,
        loss=of_batch(chosen.function, next_token_logits) if another else next_token_loss,
        count=count_targets,
        training=data.training,
        validation=data.validation,
        baseline=baseline(data, listener),
        batch_size=batch_size_of(config, len(data.training), config.data.batch_size),
        micro_batch_size=config.data.micro_batch_size,
        measured=config.loop.evaluate_windows,
        example="window",
        term="token",
        loss_unit="nats per token",
        validated=next_token_loss if another else None,
        trained_unit=f"{chosen.name} per token" if another else "",
        own_loss=chosen.examined(next_token_logits),
        description=in_words(config.model),
        conclude=concluding(config, data, listener),
        glimpse=lambda model: "".join(sample(model, config, data)),
        facts=facts(data),
        origin={"tokenizer": fingerprint(data.tokenizer), **chosen.origin()},
    )


def describe_loss(chosen: ChosenLoss, vocabulary: int, listener: Listener) -> None:
    """Call a loss that is not the cross entropy once, and say what is measured by which. Raises SetupError as `tried` does."""
    tried(chosen, torch.zeros(2, vocabulary), torch.arange(2))
    listener.say(
        "loss",
        f"{chosen.name} is trained; the validation is measured by cross-entropy, in nats per token: only that compares with "
        "the bigram model and with runs of other losses",
    )


def first_model(config: TrainConfig, data: Text) -> Transformer:
    """The model to begin with; one whose weights a checkpoint holds needs no folder that they once came from."""
    if config.model.pretrained and data.begun is None:
        return pretrained_model(config.model, data.vocabulary)
    return build_model(config.model, data.begun or data.vocabulary, config.seed)


def count_targets(batch: Batch) -> int:
    """Tokens that are predicted."""
    return batch["targets"].numel()


def baseline(data: Text, listener: Listener) -> Baseline:
    """Fit the bigram model on the training tokens and measure it on the validation windows."""
    with listener.phase("fitting the bigram baseline"):
        bigram = fit_bigram(data.training.tokens, data.vocabulary)
        loss = bigram_loss(bigram, data.validation)
    listener.say(
        "to beat", f"bigram model: {loss:.4f} nats per validation token (prior strength {bigram.strength:.3g})"
    )

    def compare(own: float) -> str:
        who = "the model" if own < loss else "the bigram model"
        return f"{who} gives the next token {math.exp(abs(loss - own)):.2f} times the probability"

    return Baseline("bigram model", loss, compare)


def concluding(config: TrainConfig, data: Text, listener: Listener) -> Callable[[nn.Module, float], Conclusion]:
    """What is said at the end: bits per byte, which do not depend on the tokenizer, and a sample."""

    def conclude(model: nn.Module, loss: float) -> Conclusion:
        bits = loss / math.log(2) / bytes_per_token(data)
        prompt, text = "", ""
        if config.sample.tokens:
            with listener.phase("writing a sample"):
                prompt, text = sample(model, config, data)
        return Conclusion({"bits_per_byte": bits}, (("bits", f"{bits:.3f} per byte of text"),), prompt, text)

    return conclude


def bytes_per_token(data: Text) -> float:
    """Of the validation text."""
    return data.facts.validation_bytes / len(data.validation.tokens)


def sample(model: nn.Module, config: TrainConfig, data: Text) -> tuple[str, str]:
    """(prompt, continuation): of the configured prompt, or of the beginning of the validation text."""
    settings, tokenizer = config.sample, data.tokenizer
    beginning: list[int] = data.validation.tokens[:PROMPT_TOKENS].tolist()
    ids = encoded(tokenizer, settings.prompt) if settings.prompt else beginning
    return continued(model, tokenizer, ids, config.model.context, settings, config.seed)


def facts(data: Text) -> dict[str, object]:
    """Of the text, for the report."""
    return {
        **asdict(data.facts),
        "training_tokens": len(data.training.tokens),
        "validation_tokens": len(data.validation) * data.validation.context,
        "bytes_per_token": bytes_per_token(data),
    }


TEXT = Kind("transformer", prepare, save, load, make)
