"""A whole run of the kernel, new or resumed: words, vocabulary, kernel, preflight, loop, vectors."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from chainrule.data.word_corpus import JOB_WORDS
from chainrule.errors import CheckpointError, ConfigError
from chainrule.train.begin import accepted, first_state
from chainrule.train.config import TrainConfig
from chainrule.train.engine import Engine
from chainrule.train.interrupt import stop_on_signals
from chainrule.train.journal import Keeper, open_journal
from chainrule.train.records import Listener, Silent, plural
from chainrule.train.results import Outcome, Results
from chainrule.train.run import how_to_go_on
from chainrule.train.run_folder import Run, as_tables, make_folder, removed_if_refused, sole_trainer, write_config
from chainrule.train.tasks.words_data import WordFacts, Words, describe, load, prepare, save
from chainrule.train.tensorboard import choose
from chainrule.train.words.baseline import frequency_loss
from chainrule.train.words.choose import resolved, shape_of
from chainrule.train.words.finish import finish_words, require_usable
from chainrule.train.words.kernel import compiled
from chainrule.train.words.loop import JOBS, WordsJob, steps_of, train_words
from chainrule.train.words.preflight import KernelReport, prove_kernel
from chainrule.train.words.shape import make_tables
from chainrule.train.words.weights import WordsState, initial_weights, load_words


def run_words(run: Run, *, engines: Mapping[str, Engine], listener: Listener | None = None) -> Results:
    """Train to the end, to Ctrl-C or SIGTERM, or until the preflight says no; `engines` prove the kernel.

    Raises DataError, ConfigError, CheckpointError, NonFiniteError; KeyboardInterrupt, with the way to go on as its
    message, if interrupted outside the loop.
    """
    listener, start = listener or Silent(), time.perf_counter()
    board = choose(run.config.loop.tensorboard)
    config, reasons = resolved(run.config.words)
    run = replace(run, config=replace(run.config, words=config), remarks={**run.remarks, **reasons})
    words = None if run.folder and load(run.folder, run.config) else prepare(run.config, listener)
    if words:
        run = _with_sentence(run, words)
        require_usable(config.tests, config.neighbours, words.vocabulary)
        shape_of(config, len(words.vocabulary))
    folder = run.folder or make_folder(run, "words")
    try:
        with removed_if_refused(run, folder), sole_trainer(folder):
            if words:
                with listener.phase("numbering the words"):
                    save(folder, words)
            job, facts = _job(run, folder, listener)
            with open_journal(folder, board, listener) as journal:
                return _train(job, run.checkpoint, journal, facts, engines, listener, start)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(folder)) from None


def _with_sentence(run: Run, words: Words) -> Run:
    """The run with what a sentence is of this text."""
    if not words.sentence_reason:
        return run
    config = replace(run.config, words=replace(run.config.words, sentence=words.rule.sentence))
    return replace(run, config=config, remarks={**run.remarks, "words.sentence": words.sentence_reason})


def _job(run: Run, folder: Path, listener: Listener) -> tuple[WordsJob, WordFacts]:
    """Make all that the loop needs, and say what is trained."""
    data, config = load(folder, run.config), run.config.words
    if data is None or data.corpus is None:
        raise CheckpointError(f"{folder} has no data: it was removed while the run began; start a new run")
    vocabulary, corpus, facts = data.vocabulary, data.corpus, data.facts
    describe(vocabulary, facts, listener)
    steps = steps_of(corpus, config.epochs)
    require_no_steps(run, steps, listener)
    shape = shape_of(config, len(vocabulary))
    with listener.phase("compiling the kernel (some seconds the first time; kept for later runs)"):
        tables = make_tables(shape, vocabulary, config.sample)
        kernel = compiled(shape, tables, len(vocabulary))
    run = replace(run, config=replace(run.config, steps=steps))
    if run.checkpoint is None:
        write_config(folder, run.config, {**run.remarks, "steps": f"of {JOBS * JOB_WORDS:,} words or a little more"})
    weights = initial_weights(shape, len(vocabulary), run.config.seed)
    origin = {
        "config": as_tables(run.config),
        "threads": config.threads,
        "versions": {name: version(name) for name in ("chainrule", "numpy", "numba")}
        | {"python": platform.python_version()},
    }
    job = WordsJob(run.config, vocabulary, corpus, tables, kernel, weights, folder, origin)
    _announce(job, listener)
    return job, facts


def require_no_steps(run: Run, steps: int, listener: Listener) -> None:
    """Raise ConfigError if a new run is given a number of steps: they follow from its text and its epochs.

    The file of an earlier run holds those of that run: they are the same, or flags have changed what they follow from.
    """
    given = run.config.steps
    if run.folder is not None or given in (TrainConfig().steps, steps):
        return
    changed = any(of == "flag" and name.startswith(("text", "words.")) for name, of in run.remarks.items())
    if changed and run.remarks.get("steps") == "file":
        listener.say("steps", f"{steps:,}, by the text and words.epochs, instead of the file's {given:,}")
        return
    raise ConfigError(
        f"steps is {given:,} and task is 'words', whose steps follow from the text and words.epochs "
        f"({run.config.words.epochs}: {plural(steps, 'step')}); leave steps out, and set words.epochs"
    )


def _announce(job: WordsJob, listener: Listener) -> None:
    """Say what is trained, and every automatic choice."""
    config, shape = job.config.words, job.weights.shape
    negatives = f", {shape.negatives} negatives ({shape.shared} shared)" if config.objective == "negative" else ""
    listener.say(
        "model",
        f"{config.model}, {config.objective}{negatives}, {shape.dimensions} dimensions, window "
        f"{'1 to ' if shape.dynamic else ''}{shape.window}: "
        f"{job.weights.parameters:,} parameters",
    )
    listener.say(
        "update",
        f"learning rate {config.learning_rate:g} to {config.final_learning_rate:g}, {plural(config.epochs, 'epoch')}, "
        f"{plural(config.threads, 'thread')}{' without locks' if config.threads > 1 else ', bitwise reproducible'}",
    )


def _train(
    job: WordsJob,
    checkpoint: Path | None,
    journal: Keeper,
    facts: WordFacts,
    engines: Mapping[str, Engine],
    listener: Listener,
    start: float,
) -> Results:
    config = job.config.words
    baseline = frequency_loss(job.vocabulary.counts, config.sample, config.objective, config.negatives)
    load = partial(load_words, weights=job.weights)
    state = first_state(job.folder, checkpoint, WordsState(), load, journal, listener)
    resumed_at = state.step
    outcome: Outcome = "refused by preflight"
    if checkpoint is not None or _passes(job, engines, listener):
        listener.say("to beat", f"word frequencies alone: {baseline:.4f} nats per predicted word")
        with stop_on_signals(listener.stopping) as stop:
            train_words(job, state, journal, listener, stop)
        outcome = "finished" if state.step >= job.steps else "interrupted"
    results = finish_words(job, state, outcome, facts, baseline, listener, start, resumed_at)
    journal.note(outcome, f"step {state.step}")
    return results


def _passes(job: WordsJob, engines: Mapping[str, Engine], listener: Listener) -> bool:
    """Prove the kernel, unless the run is set to go without."""
    if not job.config.loop.preflight:
        return True
    with listener.phase("preflight: proving that the kernel's step is the gradient's"):
        report: KernelReport = prove_kernel(
            job.kernel,
            job.weights.shape,
            job.vocabulary,
            job.config.words.sample,
            job.corpus.job(0),
            engines,
            job.config.seed,
        )
    return accepted(report, job.folder, listener)
