"""The end of a run of the kernel: vectors in both formats, nearest words, tests, report."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from chainrule.data.vocabulary import Vocabulary
from chainrule.data.word_tests import evaluate, require_test
from chainrule.data.word_vectors import WordVectors
from chainrule.train.finish import preflight_report, written
from chainrule.train.records import Listener
from chainrule.train.results import Outcome, Results
from chainrule.train.tasks.words_data import WordFacts
from chainrule.train.words.loop import WordsJob
from chainrule.train.words.vectors import nearest, save_vectors
from chainrule.train.words.weights import WordsState


def finish_words(
    job: WordsJob,
    state: WordsState,
    outcome: Outcome,
    facts: WordFacts,
    baseline: float,
    listener: Listener,
    start: float,
    resumed_at: int,
) -> Results:
    """Write vectors and report; an interrupted run is only reported, so that Ctrl-C ends soon."""
    lines: list[tuple[str, str]] = []
    metrics: dict[str, float] = {}
    loss, over = trained(job, state)
    if state.epochs:
        lines.append(("frequencies", f"{baseline:.4f}: the loss of a model that knows only how frequent words are"))
    if outcome == "finished":
        vectors = vectors_of(job)
        with listener.phase("writing the vectors"):
            save_vectors(job.folder, vectors)
        lines += [("nearest", text) for text in nearest(vectors, job.config.words.neighbours)]
        with listener.phase("testing the vectors"):
            lines += _tests(vectors, job.config.words.tests, metrics)
    if state.seconds:
        kept = sum(epoch.kept for epoch in state.epochs)
        lines.append(
            ("effective", f"{kept / state.seconds:,.0f} words/s after sub-sampling, {kept / state.words:.1%} of all")
        )
    return written(
        Results(
            outcome=outcome,
            folder=str(job.folder),
            task="words",
            steps=state.step,
            steps_wanted=job.steps,
            parameters=job.weights.parameters,
            gradient="kernel, proved against autograd and chain_rule",
            method=f"{job.config.words.model}, {job.config.words.objective}",
            precision="float32",
            precision_reason="the kernel's",
            threads=job.config.words.threads,
            loss_unit="nats per predicted word",
            trained_unit="nats per predicted word",
            training_loss=loss,
            trained_over=over,
            validation_loss=None,
            baseline="word frequencies",
            baseline_loss=baseline,
            comparison="",
            best_loss=None,
            best_step=0,
            term="word",
            terms_seen=state.words,
            terms_per_second=state.words / state.seconds if state.seconds else 0.0,
            loop_seconds=state.seconds,
            total_seconds=time.perf_counter() - start,
            resumed_at=resumed_at,
            preflight=preflight_report(job.folder),
            metrics=metrics,
            conclusion=tuple(lines),
            prompt="",
            continuation="",
            data=asdict(facts),
        )
    )


def trained(job: WordsJob, state: WordsState) -> tuple[float | None, str]:
    """The loss of the last whole epoch, or of the part that there is of the first one; and what it is the mean of."""
    whole = [number for number, epoch in enumerate(state.epochs) if epoch.jobs == len(job.corpus)]
    if not state.epochs:
        return None, ""
    epoch = state.epochs[whole[-1] if whole else 0]
    part = f"the first {epoch.jobs / len(job.corpus):.0%} of epoch 1"
    over = (
        part if not whole else "the last epoch" if len(whole) == job.config.words.epochs else f"epoch {whole[-1] + 1}"
    )
    return epoch.loss / max(epoch.pairs, 1), over


def vectors_of(job: WordsJob) -> WordVectors:
    """The input vectors, with their words."""
    return WordVectors(job.vocabulary.words, np.ascontiguousarray(job.weights.matrix(job.weights.inputs)))


def _tests(vectors: WordVectors, files: tuple[str, ...], metrics: dict[str, float]) -> list[tuple[str, str]]:
    lines = []
    for file in files:
        score = evaluate(vectors, Path(file))
        metrics[score.file] = score.figure
        lines.append((score.file[:15], str(score)))
    return lines


def require_usable(tests: tuple[str, ...], asked: tuple[str, ...], vocabulary: Vocabulary) -> None:
    """Raise DataError before training if a test file cannot be used or a word that is to be shown is unknown."""
    names = WordVectors(vocabulary.words, np.zeros((len(vocabulary), 1), np.float32))
    for word in asked:
        names.place(word)
    for file in tests:
        require_test(vocabulary.words, Path(file))
