"""The end of a run: the validation loss on everything, a sample, and the report in the run folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chainrule.data.bigram import Bigram
from chainrule.train.atomic import read_json, write_text
from chainrule.train.checkpoint import State
from chainrule.train.evaluate import validation_loss
from chainrule.train.loop import Job
from chainrule.train.optimizers import count
from chainrule.train.precision import Choice
from chainrule.train.prepare import Prepared
from chainrule.train.records import Listener
from chainrule.train.results import Outcome, Results
from chainrule.train.sample import continuation

PREFLIGHT = "preflight.json"
PROMPT_TOKENS = 24


@dataclass(frozen=True)
class Session:
    """What a run has besides its state: the loop's job, where it came from, who listens, when it began."""

    job: Job
    data: Prepared
    bigram: Bigram
    choice: Choice
    listener: Listener
    start: float


def finish(session: Session, state: State, outcome: Outcome) -> Results:
    """Measure, sample and report; an interrupted run is only reported, so that Ctrl-C ends soon."""
    job, data, listener = session.job, session.data, session.listener
    loss, prompt, text = None, "", ""
    if outcome == "finished":
        with listener.phase("measuring the validation loss on all windows"):
            loss = validation_loss(job.model, job.loss, job.validation, job.device)
        if job.config.sample.tokens:
            with listener.phase("writing a sample"):
                prompt, text = sample(job, data)
    tokens = state.samples * job.config.model.context
    results = Results(
        outcome=outcome,
        folder=str(job.folder),
        steps=state.step,
        steps_wanted=job.config.steps,
        parameters=count(job.model),
        gradient=job.config.gradient,
        method=job.config.method,
        precision=session.choice.precision,
        precision_reason=session.choice.reason,
        threads=torch.get_num_threads(),
        training_loss=sum(state.recent) / len(state.recent) if state.recent else None,
        validation_loss=loss,
        bigram_loss=job.bigram_loss,
        bigram_strength=session.bigram.strength,
        best_loss=state.best_loss,
        best_step=state.best_step,
        bytes_per_token=data.facts.validation_bytes / len(data.validation.tokens),
        training_tokens=len(data.training.tokens),
        validation_tokens=len(job.validation) * job.config.model.context,
        tokens_seen=tokens,
        tokens_per_second=tokens / state.seconds if state.seconds else 0.0,
        loop_seconds=state.seconds,
        total_seconds=time.perf_counter() - session.start,
        preflight=preflight_report(job.folder),
        prompt=prompt,
        continuation=text,
        data=data.facts,
    )
    write_text(job.folder / "report.json", json.dumps(results.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(job.folder / "report.txt", f"{results}\n{results.prompt}{results.continuation}\n")
    return results


def sample(job: Job, data: Prepared) -> tuple[str, str]:
    """(prompt, continuation): of the configured prompt, or of the beginning of the validation text."""
    config, tokenizer = job.config.sample, data.tokenizer
    ids = tokenizer.encode(config.prompt).ids if config.prompt else data.validation.tokens[:PROMPT_TOKENS].tolist()
    following = continuation(job.model, ids, job.config.model.context, config, job.config.seed)
    whole, prompt = (tokenizer.decode(tokens, skip_special_tokens=False) for tokens in (ids + following, ids))
    return prompt, whole[len(prompt) :]


def preflight_report(folder: Path) -> dict[str, Any] | None:
    """The preflight's report of a run, if it had one."""
    if not (folder / PREFLIGHT).is_file():
        return None
    report: dict[str, Any] = read_json(folder / PREFLIGHT)
    return report
