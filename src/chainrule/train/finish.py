"""The end of a run: the validation loss on everything, what the task concludes, and the report in the run folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chainrule.train.atomic import read_json, write_text
from chainrule.train.begin import PREFLIGHT
from chainrule.train.checkpoint import State
from chainrule.train.evaluate import validation_loss
from chainrule.train.loop import Job
from chainrule.train.optimizers import count
from chainrule.train.records import Listener
from chainrule.train.results import Outcome, Results
from chainrule.train.task import Conclusion


@dataclass(frozen=True)
class Session:
    """What a run has besides its state: the loop's job, the reasons of its choices, who listens, when and where it began."""

    job: Job
    reasons: dict[str, str]
    listener: Listener
    start: float
    resumed_at: int = 0


def finish(session: Session, state: State, outcome: Outcome) -> Results:
    """Measure, conclude and report; an interrupted run is only reported, so that Ctrl-C ends soon."""
    job = session.job
    loss, conclusion = None, Conclusion()
    if outcome in ("finished", "stopped early"):
        with session.listener.phase("measuring the validation loss on all examples"):
            loss = validation_loss(job.model, job.loss, job.task, job.device)
        conclusion = job.task.conclude(job.model, loss)
    results = _results(session, state, outcome, loss, conclusion)
    return written(results)


def _results(session: Session, state: State, outcome: Outcome, loss: float | None, conclusion: Conclusion) -> Results:
    job, task = session.job, session.job.task
    return Results(
        outcome=outcome,
        folder=str(job.folder),
        task=job.config.task,
        steps=state.step,
        steps_wanted=job.config.steps,
        parameters=count(job.model),
        gradient=job.config.gradient,
        method=job.config.method,
        precision=job.config.precision,
        precision_reason=session.reasons["precision"],
        threads=torch.get_num_threads(),
        loss_unit=task.loss_unit,
        trained_unit=task.trained_unit or task.loss_unit,
        training_loss=sum(state.recent) / len(state.recent) if state.recent else None,
        trained_over="the last steps",
        validation_loss=loss,
        baseline=task.baseline.name,
        baseline_loss=task.baseline.loss,
        comparison="" if loss is None else task.baseline.compare(loss),
        best_loss=state.best_loss,
        best_step=state.best_step,
        term=task.term,
        terms_seen=state.terms,
        terms_per_second=state.terms / state.seconds if state.seconds else 0.0,
        loop_seconds=state.seconds,
        total_seconds=time.perf_counter() - session.start,
        resumed_at=session.resumed_at,
        preflight=preflight_report(job.folder),
        metrics=dict(conclusion.metrics),
        conclusion=conclusion.lines,
        prompt=conclusion.prompt,
        continuation=conclusion.text,
        data=dict(task.facts),
    )


def written(results: Results) -> Results:
    """Write report.json and report.txt to the run's folder."""
    folder = Path(results.folder)
    sample = f"{results.prompt}{results.continuation}\n" if results.continuation else ""
    write_text(folder / "report.json", json.dumps(results.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "report.txt", f"{results}\n{sample}")
    return results


def preflight_report(folder: Path) -> dict[str, Any] | None:
    """The preflight's report of a run, if it had one."""
    if not (folder / PREFLIGHT).is_file():
        return None
    report: dict[str, Any] = read_json(folder / PREFLIGHT)
    return report
