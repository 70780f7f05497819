"""The automatic choices of a run of the kernel, each with its reason."""

from __future__ import annotations

import os
from dataclasses import replace

from chainrule.errors import ConfigError
from chainrule.train.config_words import WordsConfig
from chainrule.train.words.shape import Shape

LARGEST_SOFTMAX = 20_000
_BLOCK = {"negative": 64, "hierarchical": 4, "softmax": 16}  # small where every word of a block moves the same rows
_REPEATS = 3
_CBOW_GROUP = 8
_SHARED = {
    "skip-gram": (
        40,
        "auto: analogies within the noise of own negatives for each pair; fewer are faster and cost some of them",
    ),
    "cbow": (8, "auto: for 8 centres, about as many products as own negatives, an eighth of the memory traffic"),
}
_RATE = {
    "skip-gram": (0.025, "auto: as word2vec and gensim"),
    "cbow": (0.075, "auto: a mean's true gradient is small, one share for each word of the window"),
}


def resolved(config: WordsConfig) -> tuple[WordsConfig, dict[str, str]]:
    """The settings with every 0 that means "choose" replaced; and the reasons, by setting."""
    reasons: dict[str, str] = {}

    def choose(name: str, given: float, choice: tuple[float, str]) -> float:
        if given:
            return given
        reasons[f"words.{name}"] = choice[1]
        return choice[0]

    cores = os.cpu_count() or 1, "auto: one a core; 1 is bitwise reproducible"
    config = replace(
        config,
        threads=int(choose("threads", config.threads, cores)),
        shared_negatives=int(choose("shared_negatives", config.shared_negatives, _SHARED[config.model])),
        learning_rate=choose("learning_rate", config.learning_rate, _RATE[config.model]),
    )
    return config, reasons


def shape_of(config: WordsConfig, words: int) -> Shape:
    """What the kernel is compiled for. Raises ConfigError if the full softmax is asked for over too many words."""
    if config.objective == "softmax" and words > LARGEST_SOFTMAX:
        raise ConfigError(
            f"words.objective is 'softmax' and the vocabulary has {words:,} words: each prediction would cost as many "
            f"products. At most {LARGEST_SOFTMAX:,} are allowed: set words.max_words, or take 'negative' or 'hierarchical'"
        )
    block = _BLOCK[config.objective]
    return Shape(
        model=config.model,
        objective=config.objective,
        dimensions=config.dimensions,
        window=config.window,
        negatives=config.negatives,
        shared=config.shared_negatives if config.objective == "negative" else 0,
        block=block,
        repeats=_REPEATS,
        group=_CBOW_GROUP if config.model == "cbow" else block + 2 * config.window,
        dynamic=config.dynamic_window,
    )
