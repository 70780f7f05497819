"""Word2Vec by its plain torch module in the common loop: any gradient engine, any optimizer, small texts.

The examples are drawn once, by the same rules as the kernel draws them anew in each epoch: sub-sampling, windows,
negatives. A sentence is on one side, training or validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from chainrule.data.vocabulary import Vocabulary
from chainrule.data.word_corpus import in_memory
from chainrule.data.word_vectors import WordVectors
from chainrule.errors import DataError
from chainrule.models.word2vec import Word2Vec
from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Batch, Loss
from chainrule.train.records import Listener
from chainrule.train.task import Baseline, Conclusion, Kind, Task, batch_size_of
from chainrule.train.tasks import words_data
from chainrule.train.tasks.words_data import Words, describe, save
from chainrule.train.words.baseline import frequency_loss
from chainrule.train.words.choose import resolved, shape_of
from chainrule.train.words.pairs import Pairs, draw_pairs
from chainrule.train.words.proof import rows_of_output
from chainrule.train.words.shape import make_tables
from chainrule.train.words.textbook import LOSSES
from chainrule.train.words.vectors import nearest, save_vectors

MEASURED = 4096


def prepare(config: TrainConfig, listener: Listener) -> Words:
    """Count and number the words of a text that fits in memory."""
    words = words_data.prepare(config, listener)
    return replace(words, corpus=in_memory(words.texts, words.rule, words.vocabulary))


def make(config: TrainConfig, data: Words, listener: Listener) -> Task:
    """The task of predicting words from those around them."""
    assert data.corpus is not None
    describe(data.vocabulary, data.facts, listener)
    settings, _ = resolved(config.words)
    settings = replace(settings, shared_negatives=settings.negatives)  # each example has its own
    shape = shape_of(settings, len(data.vocabulary))
    tables = make_tables(shape, data.vocabulary, settings.sample)
    training, validation = draw_pairs(shape, tables, data.corpus, config.seed, config.data.validation_fraction)
    _require_pairs(training, validation, settings.batch_size)
    loss = frequency_loss(data.vocabulary.counts, settings.sample, settings.objective, settings.negatives)
    listener.say("to beat", f"word frequencies alone: {loss:.4f} nats per predicted word")
    return Task(
        model=Word2Vec(
            len(data.vocabulary),
            rows_of_output(shape, len(data.vocabulary)),
            shape.dimensions,
            torch.Generator().manual_seed(config.seed),
        ),
        loss=mean_of(LOSSES[shape.objective]),
        count=count_predictions,
        training=training,
        validation=validation,
        baseline=Baseline("word frequencies", loss, lambda own: compared(own, loss)),
        batch_size=batch_size_of(config, len(training), settings.batch_size),
        micro_batch_size=settings.batch_size,
        measured=MEASURED,
        example="prediction",
        term="prediction",
        loss_unit="nats per predicted word",
        description=f"Word2Vec, {shape.model}, {shape.objective}, {shape.dimensions} dimensions, window {shape.window}",
        conclude=concluding(config, data.vocabulary),
        facts=asdict(data.facts),
    )


def compared(own: float, baseline: float) -> str:
    """Who predicts better, and by how much."""
    who = "the model" if own < baseline else "knowing only the frequencies"
    return f"{who} is better by {abs(baseline - own):.4f} nats"


def _require_pairs(training: Pairs, validation: Pairs, batch_size: int) -> None:
    if len(training) < batch_size or not len(validation):
        raise DataError(
            f"the text makes {len(training):,} predictions to train on and {len(validation):,} to validate; "
            f"{batch_size:,} and 1 are needed: take more text, or a smaller words.batch_size"
        )


def mean_of(loss: Loss) -> Loss:
    """The textbook's sum over predictions as their mean."""

    def mean(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model, batch) / count_predictions(batch)

    return mean


def count_predictions(batch: Batch) -> int:
    """Examples of a batch."""
    return len(batch["window"])


def concluding(config: TrainConfig, vocabulary: Vocabulary) -> Callable[[nn.Module, float], Conclusion]:
    """The nearest words."""

    def conclude(model: nn.Module, _loss: float) -> Conclusion:
        assert isinstance(model, Word2Vec)
        vectors = WordVectors(vocabulary.words, model.input.weight.detach().float().cpu().numpy())
        return Conclusion(lines=tuple(("nearest", text) for text in nearest(vectors, config.words.neighbours)))

    return conclude


def write_vectors(folder: Path, config: TrainConfig) -> None:
    """Write the vectors of the newest checkpoint of a run without the kernel, as a run of the kernel does."""
    checkpoint, data = newest_checkpoint(folder), words_data.load(folder, config)
    assert checkpoint is not None
    assert data is not None
    matrix = load_file(checkpoint / "model.safetensors")["input.weight"]
    save_vectors(folder, WordVectors(data.vocabulary.words, np.asarray(matrix, np.float32)))


WORDS = Kind("words", prepare, save, words_data.load, make)
