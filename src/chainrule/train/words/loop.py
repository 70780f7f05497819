"""The loop of the kernel: jobs to threads, a record for every hundred thousand words, checkpoints between.

The learning rate falls linearly with the words of the text that jobs before have read, all epochs together; a job keeps
its rate. gensim's schedule is the same.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data.vocabulary import Vocabulary
from chainrule.data.word_corpus import JOB_WORDS, WordCorpus
from chainrule.errors import NonFiniteError
from chainrule.train.config import TrainConfig
from chainrule.train.interrupt import Stop
from chainrule.train.journal import Keeper
from chainrule.train.records import Listener, StepRecord
from chainrule.train.words.crew import Crew
from chainrule.train.words.kernel import Kernel
from chainrule.train.words.shape import Scratch, Tables, make_scratch
from chainrule.train.words.weights import Epoch, Weights, WordsState, save_words

JOBS = 10  # of a step: what one record tells


def steps_of(corpus: WordCorpus, epochs: int) -> int:
    """Steps of a run: what `TrainConfig.steps` is set to."""
    return math.ceil(len(corpus) * epochs / JOBS)


@dataclass(frozen=True)
class WordsJob:
    """What the loop works with; only the state and the weights change."""

    config: TrainConfig
    vocabulary: Vocabulary
    corpus: WordCorpus
    tables: Tables
    kernel: Kernel
    weights: Weights
    folder: Path
    facts: dict[str, Any]

    @property
    def jobs(self) -> int:
        """Of all epochs."""
        return len(self.corpus) * self.config.words.epochs

    @property
    def steps(self) -> int:
        """Of all epochs; the last one may be shorter."""
        return steps_of(self.corpus, self.config.words.epochs)


@dataclass(frozen=True)
class Done:
    """What a job reports: sums of its losses, predictions, words read and words left by sub-sampling."""

    epoch: int
    rate: float
    loss: float
    pairs: int
    words: int
    kept: int


def learning_rates(job: WordsJob) -> NDArray[np.float64]:
    """The rate of each job: a row for each epoch."""
    words = job.corpus.words
    before = np.concatenate([[0], np.cumsum(words)[:-1]])
    epochs = np.arange(job.config.words.epochs)[:, None]
    progress = (epochs * words.sum() + before) / (len(epochs) * words.sum())
    start, final = job.config.words.learning_rate, job.config.words.final_learning_rate
    return np.asarray(start - (start - min(start, final)) * progress)


def train_words(job: WordsJob, state: WordsState, journal: Keeper, listener: Listener, stop: Stop) -> None:
    """Train to the last job or until a stop is asked for, and save. Raises NonFiniteError."""
    every = job.config.words.checkpoint_words // (JOBS * JOB_WORDS) or job.steps
    scratches = [_scratch(job) for _ in range(job.config.words.threads)]
    rates = learning_rates(job)
    listener.begin(state.step, job.steps, "word")
    try:
        while state.step < job.steps and not stop.requested:
            end = min(job.steps, (state.step // every + 1) * every)
            _segment(job, state, end, scratches, rates, journal, listener, stop)
            save_words(job.folder, job.weights, state, job.facts)
    finally:
        listener.end()


def _scratch(job: WordsJob) -> Scratch:
    return make_scratch(job.weights.shape, job.tables, len(job.vocabulary), job.corpus.longest)


def _segment(
    job: WordsJob,
    state: WordsState,
    end: int,
    scratches: list[Scratch],
    rates: NDArray[np.float64],
    journal: Keeper,
    listener: Listener,
    stop: Stop,
) -> None:
    """The steps up to `end`; then no thread works, and the weights may be read."""

    def work(number: int, scratch: Scratch) -> Done:
        epoch, place = divmod(number, len(job.corpus))
        rate = float(rates[epoch, place])
        loss, pairs, kept = job.kernel(
            job.weights.inputs,
            job.weights.outputs,
            job.corpus.job(place),
            job.tables,
            job.config.seed,
            epoch,
            place,
            np.float32(rate),
            scratch,
        )
        return Done(epoch, rate, loss, pairs, int(job.corpus.words[place]), kept)

    crew = Crew(work, scratches, state.step * JOBS, min(end * JOBS, job.jobs))
    start, waiting, left = time.perf_counter(), [], job.jobs - state.step * JOBS
    for done in crew.results():
        waiting.append(done)
        left -= 1
        if len(waiting) == JOBS or not left:
            now = time.perf_counter()
            record = _record(state, waiting, now - start)
            start, waiting = now, []
            journal.step(record)
            listener.step(record)
            _tell_epochs(job, state, journal, listener)
        if stop.requested:
            crew.stop(JOBS)


def _record(state: WordsState, jobs: list[Done], seconds: float) -> StepRecord:
    """Count the jobs of a step. Raises NonFiniteError if their loss is inf or nan."""
    for done in jobs:
        while len(state.epochs) <= done.epoch:
            state.epochs.append(Epoch())
        epoch = state.epochs[done.epoch]
        epoch.jobs += 1
        epoch.loss += done.loss
        epoch.pairs += done.pairs
        epoch.kept += done.kept
    state.step += 1
    state.seconds += seconds
    words, pairs = sum(done.words for done in jobs), sum(done.pairs for done in jobs)
    state.words += words
    loss = sum(done.loss for done in jobs) / max(pairs, 1)
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"step {state.step}: the loss is {loss} at learning rate {jobs[0].rate:.3g}; the vectors of this moment are not "
            "saved, the last checkpoint is from before. Take a smaller words.learning_rate"
        )
    return StepRecord(state.step, loss, jobs[0].rate, None, words, seconds)


def _tell_epochs(job: WordsJob, state: WordsState, journal: Keeper, listener: Listener) -> None:
    """Say the loss of an epoch when its last job is done."""
    for number, epoch in enumerate(state.epochs, start=1):
        if epoch.jobs == len(job.corpus) and not epoch.told:
            epoch.told = True
            text = f"loss {epoch.loss / max(epoch.pairs, 1):.4f}, the mean of {epoch.pairs:,} predictions"
            journal.note("epoch", f"{number}: {text}")
            listener.say(f"epoch {number}", text)
