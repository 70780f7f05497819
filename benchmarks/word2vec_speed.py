"""Word2Vec's kernel and gensim on the same text in one process: words per second, and what the vectors are worth.

    python benchmarks/word2vec_speed.py --text text.txt [--threads 2] [--rounds 5] [--seeds 3] [--epochs 3]

The text comes from `real_text.py`: one sentence a line. Both train with 100 dimensions, window 5, 5 negatives, sample
1e-3, min_count 5, gensim in its list mode, whose learning rate falls with the same progress as ours. Speed: one epoch,
by turns, medians; raw words a second by the clock, and for each second of processor time, which other programs on the
machine disturb less. Quality: `--epochs` epochs, the mean over the seeds and the standard deviation.

gensim's CBOW adds the gradient of the mean to every word of the window undivided, so that its effective rate is several
times the 0.025 that it is given; ours is the true gradient at 0.075.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import gensim
import numba
import numpy as np
from gensim.models import Word2Vec
from gensim.test.utils import datapath

from chainrule.data.vocabulary import make_vocabulary
from chainrule.data.word_corpus import in_memory
from chainrule.data.word_tests import evaluate
from chainrule.data.word_vectors import WordVectors
from chainrule.data.words import Rule, count_words
from chainrule.train.config import TrainConfig
from chainrule.train.config_words import WordsConfig
from chainrule.train.events import Events
from chainrule.train.interrupt import Stop
from chainrule.train.records import Silent
from chainrule.train.words.choose import resolved, shape_of
from chainrule.train.words.kernel import compiled
from chainrule.train.words.loop import WordsJob, train_words
from chainrule.train.words.shape import make_tables
from chainrule.train.words.weights import WordsState, initial_weights

RULE = Rule(split="spaces", lowercase=False)  # real_text.py wrote words already
TESTS = ("wordsim353.tsv", "simlex999.txt", "questions-words.txt")
MODELS = ("skip-gram", "cbow")


@dataclass
class Clock:
    """Seconds by the clock and of the processor, of the training alone."""

    wall: float = 0.0
    cpu: float = 0.0

    def start(self):
        self._start = time.perf_counter(), time.process_time()

    def stop(self):
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]


class Timed(Silent):
    def __init__(self, clock):
        self.clock = clock

    def begin(self, step, steps, term):  # noqa: ARG002
        self.clock.start()

    def step(self, record):  # noqa: ARG002
        self.clock.stop()  # the last one counts: the checkpoint that follows is no training


class Ours:
    def __init__(self, text, threads, shared):
        self.shared = shared
        self.vocabulary = make_vocabulary(count_words([text], RULE), 5)
        self.corpus = in_memory([text], RULE, self.vocabulary)
        self.threads = threads

    def train(self, model, epochs, seed):
        config, _ = resolved(
            WordsConfig(
                model=model,
                epochs=epochs,
                threads=self.threads,
                shared_negatives=self.shared if model == "skip-gram" else 0,
            )
        )
        shape = shape_of(config, len(self.vocabulary))
        tables = make_tables(shape, self.vocabulary, config.sample)
        weights = initial_weights(shape, len(self.vocabulary), seed)
        kernel = compiled(shape, tables, len(self.vocabulary))
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            job = WordsJob(
                TrainConfig(task="words", seed=seed, words=config),
                self.vocabulary, self.corpus, tables, kernel, weights, Path(folder), {},
            )  # fmt: skip
            state = WordsState()
            events = Events(Path(folder))
            train_words(job, state, events, Timed(clock), Stop())
            events.close()
        last = state.epochs[-1]
        vectors = WordVectors(self.vocabulary.words, np.ascontiguousarray(weights.matrix(weights.inputs)))
        return vectors, clock, last.loss / last.pairs, sum(epoch.kept for epoch in state.epochs)


class Theirs:
    def __init__(self, text, threads):
        with text.open(encoding="utf-8") as file:
            self.sentences = [line.split() for line in file]
        self.threads = threads

    def train(self, model, epochs, seed):
        word2vec = Word2Vec(
            vector_size=100, window=5, negative=5, sample=1e-3, min_count=5, sg=int(model == "skip-gram"),
            workers=self.threads, seed=seed, epochs=epochs,
        )  # fmt: skip
        word2vec.build_vocab(self.sentences)
        clock = Clock()
        clock.start()
        word2vec.train(self.sentences, total_examples=word2vec.corpus_count, epochs=epochs)
        clock.stop()
        return WordVectors(tuple(word2vec.wv.index_to_key), word2vec.wv.vectors), clock, None, None


def speed(contestants, words, model, rounds):
    """Medians over the rounds, the two by turns."""
    clocks = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            clocks[name].append(contestant.train(model, 1, 1)[1])
    rates = {
        name: {
            "words_per_second": round(statistics.median(words / clock.wall for clock in taken)),
            "words_per_processor_second": round(statistics.median(words / clock.cpu for clock in taken)),
        }
        for name, taken in clocks.items()
    }
    ratios = {
        f"times_{measure}": round(rates["chainrule"][measure] / rates["gensim"][measure], 2)
        for measure in ("words_per_second", "words_per_processor_second")
    }
    return {**rates, **ratios}


def quality(contestants, model, epochs, seeds):
    """Mean and standard deviation of each test's figure over the seeds."""
    result = {}
    for name, contestant in contestants.items():
        figures = {test: [] for test in TESTS}
        losses = []
        for seed in range(1, seeds + 1):
            vectors, _, loss, _ = contestant.train(model, epochs, seed)
            losses.append(loss)
            for test in TESTS:
                figures[test].append(evaluate(vectors, Path(datapath(test))).figure)
        result[name] = {
            test: {"mean": round(statistics.mean(values), 4), "deviation": round(statistics.pstdev(values), 4)}
            for test, values in figures.items()
        }
        if losses[0] is not None:
            result[name]["loss_of_last_epoch"] = round(statistics.mean(losses), 4)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shared", type=int, default=0, help="negatives that skip-gram's rows share; 0 = the default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "word2vec_speed.json")
    options = parser.parse_args()
    logging.disable(logging.WARNING)

    contestants = {
        "gensim": Theirs(options.text, options.threads),
        "chainrule": Ours(options.text, options.threads, options.shared),
    }
    words = contestants["chainrule"].vocabulary.raw_words
    result = {
        "command": " ".join(["python", "benchmarks/word2vec_speed.py", *sys.argv[1:]]).replace(
            str(options.text), options.text.name
        ),
        "words": words,
        "vocabulary": len(contestants["chainrule"].vocabulary),
        "threads": options.threads,
        "dtype": "float32",
        "versions": {
            "gensim": gensim.__version__,
            "numba": numba.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    for model in MODELS:
        result[model] = {
            "speed": speed(contestants, words, model, options.rounds),
            "quality": quality(contestants, model, options.epochs, options.seeds) if options.seeds else {},
        }
        print(json.dumps({model: result[model]}, indent=1), flush=True)
    result["load_of_the_machine"] = round(os.getloadavg()[0], 1)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
