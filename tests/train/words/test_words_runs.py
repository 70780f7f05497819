"""Whole runs of the kernel: they learn, resume exactly, and leave vectors."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from chainrule import cli
from chainrule.api import train
from chainrule.data.word_vectors import load_vectors
from chainrule.errors import ConfigError, DataError, NonFiniteError
from chainrule.train.config import LoopConfig, TrainConfig
from chainrule.train.config_words import WordsConfig
from chainrule.train.records import Silent
from chainrule.train.run_folder import open_run
from chainrule.train.settings import to_toml
from chainrule.train.words import choose
from small_words import topic_text

TINY = WordsConfig(dimensions=10, window=3, sample=0, epochs=2, threads=1, checkpoint_words=200_000, sentence="line")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "topics.txt"
    file.write_text(topic_text(40_000), encoding="utf-8")  # 360,000 words
    return file


def config_of(folder, text, name="run", preflight=False, **words):
    return TrainConfig(
        task="words",
        text=(str(text),),
        runs_folder=str(folder),
        name=name,
        words=replace(TINY, **words),
        loop=LoopConfig(preflight=preflight),
    )


def same_topic(vectors, words=("t0w0", "t3w2", "t5w4")):
    """Share of nearest words that are of the word's own topic."""
    near = [(word[:2], other[:2]) for word in words for other, _ in vectors.similar(word, 5)]
    return sum(a == b for a, b in near) / len(near)


class FailsAt(Silent):
    """A run that dies at a step, as by a kill: nothing more is written."""

    def __init__(self, step):
        self.at = step

    def step(self, record):
        if record.step == self.at:
            raise RuntimeError("power cut")


class StopsAt(Silent):
    """Ctrl-C at a step."""

    def __init__(self, step):
        self.at = step

    def step(self, record):
        if record.step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("model", ["skip-gram", "cbow"])
@pytest.mark.parametrize("objective", ["negative", "hierarchical", "softmax"])
def test_words_of_one_topic_come_to_lie_together(tmp_path, text, model, objective):
    results = train(config_of(tmp_path, text, model=model, objective=objective))

    assert "finished" == results.outcome
    assert results.training_loss < results.baseline_loss
    assert same_topic(load_vectors(tmp_path / "run" / "vectors.bin")) > 0.9


def test_a_table_of_one_text_over_and_over_does_not_diverge(tmp_path):
    table = tmp_path / "table.txt"
    rows = (f"latin small letter {chr(97 + n % 26)} undefined undefined undefined undefined" for n in range(40_000))
    table.write_text(" ".join(rows), encoding="utf-8")

    results = train(config_of(tmp_path, table, dimensions=100, epochs=3))

    assert results.training_loss < results.baseline_loss


def test_two_threads_learn_as_well(tmp_path, text):
    results = train(config_of(tmp_path, text, threads=2))

    assert 2 * 360_000 == results.terms_seen
    assert same_topic(load_vectors(tmp_path / "run" / "vectors.bin")) > 0.9


def test_the_preflight_proves_the_runs_own_kernel_by_two_engines(tmp_path, text):
    train(config_of(tmp_path, text, preflight=True))
    report = json.loads((tmp_path / "run" / "preflight.json").read_text(encoding="utf-8"))

    assert "pass" == report["verdict"]
    assert ["kernel = autograd", "kernel = chain_rule"] == [stage["name"] for stage in report["stages"]]
    assert all(stage["summary"].startswith("change of the input vectors differs by") for stage in report["stages"])


@pytest.mark.parametrize("moment", [1, 3, 4, 6])
def test_a_run_that_died_is_resumed_bit_for_bit(tmp_path, text, moment):
    train(config_of(tmp_path, text, name="whole"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(config_of(tmp_path, text), listener=FailsAt(moment))

    results = train(open_run(tmp_path / "run"))

    assert "finished" == results.outcome
    assert 2 * 360_000 == results.terms_seen
    assert (tmp_path / "whole" / "vectors.bin").read_bytes() == (tmp_path / "run" / "vectors.bin").read_bytes()
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


def test_ctrl_c_saves_and_a_resumed_run_is_the_same(tmp_path, text):
    train(config_of(tmp_path, text, name="whole"))
    interrupted = train(config_of(tmp_path, text), listener=StopsAt(1))

    assert "interrupted" == interrupted.outcome
    assert interrupted.steps < interrupted.steps_wanted
    assert re.fullmatch(r"the first \d\d% of epoch 1", interrupted.trained_over)
    resumed = train(open_run(tmp_path / "run"))
    assert (interrupted.steps, "the last epoch") == (resumed.resumed_at, resumed.trained_over)
    assert (tmp_path / "whole" / "vectors.bin").read_bytes() == (tmp_path / "run" / "vectors.bin").read_bytes()


def test_a_run_that_is_interrupted_in_its_second_epoch_reports_the_first_one(tmp_path, text):
    interrupted = train(config_of(tmp_path, text), listener=StopsAt(6))

    assert "interrupted" == interrupted.outcome
    assert "epoch 1" == interrupted.trained_over


def test_the_choices_of_a_run_stand_in_its_settings_with_their_reasons(tmp_path, text):
    train(config_of(tmp_path, text, sentence="auto"))
    settings = (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")

    assert "steps = 8  # of 100,000 words or a little more" in settings
    assert "shared_negatives = 40  # auto: analogies within the noise" in settings
    assert 'sentence = "line"  # auto: 0 of the first' in settings


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_vectors(tmp_path, text):
    settings = {"epochs": 30, "dimensions": 64, "checkpoint_words": 100_000}
    train(config_of(tmp_path, text, name="whole", **settings))
    (tmp_path / "run.toml").write_text(to_toml(config_of(tmp_path, text, **settings)), encoding="utf-8")

    script = [sys.executable, str(Path(__file__).parent / "killed.py"), str(tmp_path / "run.toml"), "20"]
    killed = subprocess.run(script, capture_output=True, text=True, check=True).stdout

    assert "20\n" == killed
    assert (tmp_path / "whole" / "vectors.bin").read_bytes() == (tmp_path / "run" / "vectors.bin").read_bytes()
    assert losses(tmp_path / "whole") == losses(tmp_path / "run")


def test_a_file_of_settings_reaches_the_run(tmp_path, text):
    (tmp_path / "run.toml").write_text(to_toml(config_of(tmp_path, text, epochs=3)), encoding="utf-8")

    assert 0 == cli.run(["train", str(tmp_path / "run.toml")])
    assert "epochs = 3  # file" in (tmp_path / "run" / "config.toml").read_text(encoding="utf-8")


def test_a_number_of_steps_is_refused_for_they_follow_from_the_epochs(tmp_path, text):
    with pytest.raises(ConfigError) as refused:
        train(replace(config_of(tmp_path, text), steps=20))

    assert (
        "steps is 20 and task is 'words', whose steps follow from the text and words.epochs (2: 8 steps); leave steps out, "
        "and set words.epochs"
    ) == str(refused.value)
    assert not (tmp_path / "run").exists()


def test_the_settings_of_an_earlier_run_train_again_also_with_other_epochs(tmp_path, text, capsys):
    train(config_of(tmp_path, text))
    settings = str(tmp_path / "run" / "config.toml")

    assert 0 == cli.run(["train", settings, "--name", "again"])
    assert 0 == cli.run(["train", settings, "--name", "longer", "--words.epochs", "3"])
    assert "steps = 11  #" in (tmp_path / "longer" / "config.toml").read_text(encoding="utf-8")
    assert "steps       11, by the text and words.epochs, instead of the file's 8\n" in capsys.readouterr().out


def losses(folder):
    with closing(sqlite3.connect(folder / "metrics.sqlite")) as database:
        return database.execute("SELECT step, loss, learning_rate, terms FROM steps ORDER BY step").fetchall()


def test_the_metrics_tell_loss_rate_and_words_of_every_step(tmp_path, text):
    train(config_of(tmp_path, text))
    rows = losses(tmp_path / "run")

    assert list(range(1, 9)) == [step for step, *_ in rows]
    assert 2 * 360_000 == sum(words for *_, words in rows)
    assert rows[-1][1] < rows[0][1]
    assert 0.025 == rows[0][2]
    assert all(later[2] < earlier[2] for earlier, later in pairwise(rows))


def test_the_learning_rate_falls_linearly_with_the_words_read(tmp_path, text):
    train(config_of(tmp_path, text, learning_rate=0.05, final_learning_rate=0.01))
    rows = losses(tmp_path / "run")
    read = np.cumsum([0, *(words for *_, words in rows[:-1])])

    assert np.allclose(0.05 - 0.04 * read / (2 * 360_000), [rate for _, _, rate, _ in rows])


def test_both_files_of_vectors_hold_the_same(tmp_path, text):
    train(config_of(tmp_path, text))
    binary, plain = (load_vectors(tmp_path / "run" / name) for name in ("vectors.bin", "vectors.txt"))

    assert binary.words == plain.words
    assert np.array_equal(binary.vectors, plain.vectors)


def test_gensim_loads_the_vectors_of_a_run(tmp_path, text):
    models = pytest.importorskip("gensim.models", reason="needs the [words] extra (gensim)")
    train(config_of(tmp_path, text))
    own = load_vectors(tmp_path / "run" / "vectors.bin")

    theirs = models.KeyedVectors.load_word2vec_format(tmp_path / "run" / "vectors.bin", binary=True)

    assert [word for word, _ in own.similar("t0w0", 5)] == [word for word, _ in theirs.most_similar("t0w0", topn=5)]


def test_the_report_tells_what_was_measured_on_test_files(tmp_path, text):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("t0w0\tt0w1\t9\nt0w0\tt1w0\t1\nt2w0\tt2w1\t8\nt2w0\tt4w1\t2\n", encoding="utf-8")

    results = train(config_of(tmp_path, text, tests=(str(pairs),), neighbours=("t0w0",)))

    assert results.metrics["pairs.tsv"] > 0.5  # ranks 9, 8 above 2, 1
    report = (tmp_path / "run" / "report.txt").read_text(encoding="utf-8")
    assert "nearest         t0w0: t0w" in report
    assert f"{results.training_loss:.4f} nats per predicted word, mean of the last epoch" in report


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"tests": ("nowhere.tsv",)}, DataError, "nowhere.tsv cannot be read"),
        ({"neighbours": ("t0w99",)}, DataError, "'t0w99' is none of the 60 words; did you mean 't0w9'?"),
        ({"min_count": 10**6}, DataError, "0 of 60 different words occur 1000000 times or more"),
    ],
)
def test_what_cannot_work_is_refused_before_training_and_leaves_no_folder(tmp_path, text, wrong, error, message):
    with pytest.raises(error) as caught:
        train(config_of(tmp_path, text, **wrong))

    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_full_softmax_over_a_large_vocabulary_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setattr(choose, "LARGEST_SOFTMAX", 50)

    with pytest.raises(ConfigError, match=r"words.objective is 'softmax' and the vocabulary has 60 words"):
        train(config_of(tmp_path, text, objective="softmax"))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, text):
    with pytest.raises(
        NonFiniteError, match=r"the loss is (nan|inf) at learning rate .*Take a smaller words.learning_rate"
    ):
        train(config_of(tmp_path, text, learning_rate=1e30))


def test_a_text_that_changed_after_the_run_began_changes_nothing(tmp_path, text):
    own = tmp_path / "own.txt"
    own.write_bytes(Path(text).read_bytes())
    train(config_of(tmp_path, own, name="whole"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(config_of(tmp_path, own), listener=FailsAt(4))
    own.write_text("another text", encoding="utf-8")

    train(open_run(tmp_path / "run"))

    assert (tmp_path / "whole" / "vectors.bin").read_bytes() == (tmp_path / "run" / "vectors.bin").read_bytes()
