"""Word2Vec by the common loop: the plain module, any gradient engine, the same files at the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from chainrule.api import train
from chainrule.data.word_vectors import load_vectors
from chainrule.errors import DataError
from chainrule.train.config import LoopConfig, OptimizerConfig, TrainConfig
from chainrule.train.config_words import WordsConfig
from chainrule.train.words.pairs import draw_pairs
from small_words import small_corpus, small_shape, topic_text

PLAIN = WordsConfig(kernel=False, dimensions=8, window=2, sample=0, sentence="line", batch_size=256)


def config_of(folder, text, gradient="autograd", steps=300, **words):
    return TrainConfig(
        task="words",
        text=(str(text),),
        runs_folder=str(folder),
        name="run",
        gradient=gradient,
        steps=steps,
        precision="float32",
        optimizer=OptimizerConfig(learning_rate=0.03, weight_decay=0),
        words=replace(PLAIN, **words),
        loop=LoopConfig(preflight=False, tensorboard="off"),
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "topics.txt"
    file.write_text(topic_text(800), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("model", "objective", "gradient"),
    [
        ("skip-gram", "negative", "autograd"),
        ("cbow", "hierarchical", "autograd"),
        ("cbow", "softmax", "chain_rule"),
    ],
)
def test_it_learns_the_topics_and_leaves_vectors(tmp_path, text, model, objective, gradient):
    results = train(config_of(tmp_path, text, gradient, model=model, objective=objective))
    vectors = load_vectors(tmp_path / "run" / "vectors.bin")

    assert results.beats_baseline
    near = [other for other, _ in vectors.similar("t3w0", 5)]
    assert all(other.startswith("t3") for other in near), near


def test_the_chain_rule_trains_as_autograd_does(tmp_path, text):
    losses = [
        train(config_of(tmp_path / name, text, name, steps=5)).training_loss for name in ("autograd", "chain_rule")
    ]

    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # float32: some roundings of 6e-8


def test_a_text_that_is_too_short_is_refused(tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("a b c\n" * 9, encoding="utf-8")

    with pytest.raises(DataError, match=r"the text makes \d+ predictions to train on .* 256 and 1 are needed"):
        train(config_of(tmp_path, file, min_count=1))


@pytest.fixture(params=["skip-gram", "cbow"])
def sides(request, tmp_path):
    vocabulary, corpus = small_corpus(tmp_path)
    shape, tables = small_shape(replace(PLAIN, model=request.param, shared_negatives=5), vocabulary)
    return corpus, draw_pairs(shape, tables, corpus, 0, 0.25)


def test_each_prediction_is_on_one_side_and_none_is_lost(sides):
    corpus, (training, validation) = sides
    sentences = 400
    words = np.count_nonzero(corpus.tokens >= 0)

    assert words == len(training.kept)
    if training.shape.model == "cbow":
        assert words == len(training) + len(validation)
    assert 0.15 < len(validation) / (len(training) + len(validation)) < 0.35
    sentence_of = [set((pairs.target // (words // sentences)).tolist()) for pairs in (training, validation)]
    assert not sentence_of[0] & sentence_of[1]


def test_a_batch_holds_the_words_of_the_windows_without_the_target(sides):
    _, (training, _) = sides
    batch = training.batch(np.arange(64), torch.device("cpu"))

    for row in range(64):
        target = int(training.target[row])
        expected = [
            int(training.kept[place]) for place in range(training.first[row], training.last[row]) if place != target
        ]
        assert expected == batch["window"][row][batch["present"][row] == 1].tolist()
        assert training.kept[target] == batch["target"][row]
    assert torch.equal(batch["weight"] == 0, batch["negative"] == batch["target"].unsqueeze(1))


def test_an_example_has_the_same_negatives_in_any_batch(sides):
    _, (training, _) = sides
    one, many = (training.batch(np.array(rows), torch.device("cpu")) for rows in ([5], [3, 4, 5]))

    assert torch.equal(one["negative"][0], many["negative"][2])
