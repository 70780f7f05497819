"""A made-up language of topics: the words of a sentence are of one topic, so that vectors have something to find."""

import numpy as np

from chainrule.data.vocabulary import make_vocabulary
from chainrule.data.word_corpus import in_memory
from chainrule.data.words import Rule, count_words
from chainrule.train.words.choose import resolved, shape_of
from chainrule.train.words.shape import make_tables

TOPICS, WORDS = 6, 10


def topic_text(sentences, seed=0, length=9):
    """Lines of words t0w3 t0w7 ..., the numbers of a topic unevenly frequent."""
    generator = np.random.default_rng(seed)
    share = 1 / np.arange(1, WORDS + 1)
    words = generator.choice(WORDS, (sentences, length), p=share / share.sum())
    topics = generator.integers(0, TOPICS, sentences)
    return "".join(
        " ".join(f"t{topic}w{word}" for word in row) + "\n" for topic, row in zip(topics, words, strict=True)
    )


def small_corpus(folder, sentences=400, seed=0):
    """(vocabulary, corpus in memory) of such a text."""
    file = folder / "topics.txt"
    file.write_text(topic_text(sentences, seed), encoding="utf-8")
    vocabulary = make_vocabulary(count_words([file], Rule()), 1)
    return vocabulary, in_memory([file], Rule(), vocabulary)


def small_shape(config, vocabulary):
    """(shape, tables) of the settings, chosen as a run chooses them."""
    config, _ = resolved(config)
    shape = shape_of(config, len(vocabulary))
    return shape, make_tables(shape, vocabulary, config.sample)
