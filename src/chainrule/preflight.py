"""All checks on one subject, before training: the gradient's stages, the groups, and a rehearsal of the training step."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from types import ModuleType
from typing import Any, TypeAlias, cast

import torch

from chainrule.checks import own_loss
from chainrule.checks.gradient import STAGES
from chainrule.checks.groups import (
    AMONG_RANKS,
    CHECKS,
    JUDGES,
    ON_REQUEST,
    LoopCheck,
    Outcomes,
    SubjectCheck,
    judge,
    outcome_of,
    summarised,
)
from chainrule.checks.groups import examine as examine_group
from chainrule.checks.own_loss import loss_wrong_gradient
from chainrule.checks.own_loss.subject import LossSubject, first_look
from chainrule.checks.rehearsal import rehearse
from chainrule.checks.subject import Subject
from chainrule.errors import ConfigError, SetupError, did_you_mean
from chainrule.finding import Finding, NotRun, StageResult, repeated
from chainrule.report import Report
from chainrule.setups import Setup
from chainrule.watch.fork import WorkFailedError, in_a_copy, why_not

# Called with the name of each stage or group before it runs.
Announce: TypeAlias = Callable[[str], None]
Results: TypeAlias = tuple[tuple[StageResult, ...], tuple[Finding, ...]]


def documented() -> dict[str, ModuleType]:
    """name -> the module of every check, whose docstring is its page."""
    return _of_setups() | {check.NAME: cast(ModuleType, check) for check in own_loss.CHECKS}


def _of_setups() -> dict[str, ModuleType]:
    """Those that look at a whole set-up."""
    stages = {name: sys.modules[run.__module__] for name, run in STAGES.values()}
    groups = [
        check for table in (CHECKS, JUDGES, AMONG_RANKS, ON_REQUEST) for checks in table.values() for check in checks
    ]
    return stages | {check.NAME: cast(ModuleType, check) for check in groups}


def known_checks(only: Collection[str]) -> frozenset[str]:
    """The names as a set. Raises ConfigError for one that no check has."""
    known = sorted(_of_setups())
    if of_a_loss := sorted(set(only) & {check.NAME for check in own_loss.CHECKS}):
        raise ConfigError(f"{of_a_loss[0]} examines a loss function by itself: chainrule losses FILE.py:function")
    if unknown := sorted(set(only) - set(known)):
        otherwise = "`chainrule why` lists them all"
        raise ConfigError(f"unknown check {unknown[0]!r}; {did_you_mean(unknown[0], known, otherwise)}")
    return frozenset(only)


def report_on(subject: Subject, only: Collection[str], announce: Announce, *, without: Collection[str] = ()) -> Report:
    """Run the checks, those of some groups left out, and put what they say into a report."""
    results, findings = examine(subject, only, announce, without)
    return Report(
        findings=tuple(with_command(finding, subject.command, subject.seed) for finding in findings),
        stages=results,
        subject=_described(subject),
        seed=subject.seed,
        versions=versions(),
        command=subject.command,
        notes=subject.graph.notes,
    )


def report_on_loss(subject: LossSubject) -> Report:
    """Examine a loss function of the user's own. Raises SetupError if it cannot be called on such predictions and targets."""
    value, strength = first_look(subject)
    stages = tuple(_of_loss(subject, group, checks) for group, checks in own_loss.GROUPS.items())
    shapes = f"predictions {tuple(subject.prediction.shape)}, targets {tuple(subject.target.shape)}: {subject.kind}"
    return Report(
        findings=tuple(finding for _, findings in stages for finding in findings),
        stages=tuple(stage for stage, _ in stages),
        subject=(
            ("loss", subject.where),
            ("batch", shapes),
            ("value", f"{value:.6g} for an untrained model; one example pulls with {strength:.3g}"),
        ),
        seed=subject.seed,
        versions=versions(),
        command=subject.command,
    )


def _of_loss(subject: LossSubject, group: str, checks: tuple[Any, ...]) -> tuple[StageResult, list[Finding]]:
    """One group of the checks of a loss; that of the gradient says what it could have seen."""
    stage, findings = summarised(
        group, lambda: [(check.NAME, outcome_of(partial(check.check, subject))) for check in checks]
    )
    if findings or stage.not_run or loss_wrong_gradient not in checks:
        return stage, findings
    found = subject.slopes
    summary = f"autograd = slope of the loss in {len(found.places)} entries of the predictions, float64"
    return replace(stage, summary=summary, resolution=found.resolution), findings


def with_command(finding: Finding, command: str, seed: int) -> Finding:
    """The finding with the command that repeats its check, which a judge of a loop does not know."""
    if finding.reproduce or not command:
        return finding
    return replace(finding, reproduce=repeated(command, finding.check, seed))


def versions() -> dict[str, str]:
    """What decides the numbers."""
    return {
        "chainrule": version("chainrule"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def examine(subject: Subject, only: Collection[str], announce: Announce, without: Collection[str] = ()) -> Results:
    """Run the checks named in `only`; if it is empty, all but those that are dear."""
    results, findings = _stages(subject, only, announce)
    for result, found in _groups(subject, only, announce, without):
        results.append(result)
        findings += found
    return tuple(results), tuple(findings)


def _stages(subject: Subject, only: Collection[str], announce: Announce) -> tuple[list[StageResult], list[Finding]]:
    """The stages in order. After a FAIL only the other half of the same proof still runs: more would repeat the finding."""
    results: list[StageResult] = []
    findings: list[Finding] = []
    failed = ""
    for stage, (name, run) in STAGES.items():
        if only and name not in only:
            continue
        if failed and name != failed:
            results.append(StageResult(stage, None, f"not run: {failed} comes first"))
            continue
        announce(stage)
        result, found = run(subject)
        results.append(result)
        findings += [finding for finding in found if not _known(finding, findings)]
        if result.verdict == "fail":
            failed = name
    return results, findings


def _known(finding: Finding, findings: list[Finding]) -> bool:
    return any((finding.check, finding.where) == (other.check, other.where) for other in findings)


def _groups(
    subject: Subject, only: Collection[str], announce: Announce, without: Collection[str]
) -> Iterator[tuple[StageResult, list[Finding]]]:
    """The groups of checks beyond the gradient's stages; a group of which nothing is wanted is left out."""
    judges = {
        group: [check for check in table if not only or check.NAME in only]
        for group, table in JUDGES.items()
        if group not in without
    }
    if any(judges.values()):
        announce("rehearsal")
    rehearsed = _rehearsed(judges, subject.setup)
    for group in dict.fromkeys([*CHECKS, *JUDGES, *ON_REQUEST]):
        wanted = [check for check in CHECKS.get(group, ()) if not only or check.NAME in only]
        wanted += [check for check in ON_REQUEST.get(group, ()) if check.NAME in only]
        if wanted or rehearsed.get(group):
            announce(group)
            yield summarised(group, partial(_both, wanted, subject, rehearsed.get(group, [])))


def _both(checks: Collection[SubjectCheck], subject: Subject, rehearsed: Outcomes) -> Outcomes:
    return examine_group(checks, subject) + rehearsed


def _rehearsed(judges: Mapping[str, list[LoopCheck]], setup: Setup) -> Mapping[str, Outcomes]:
    """What the judges say of a few steps that a copy of this process makes."""
    reason = "no optimizer is given" if not setup.optimizers else why_not()
    own = setup.step is not None  # chainrule's own step makes the right calls; to judge their order says nothing
    unjudged = {"loop": judges["loop"]} if judges.get("loop") and not own and not reason else {}
    judges = {group: table for group, table in judges.items() if group not in unjudged}
    skipped = {group: _not_run(table, "no Setup.step is given") for group, table in unjudged.items()}
    if not reason and any(judges.values()):
        try:
            return {**in_a_copy(partial(_rehearse, judges, setup)), **skipped}
        except WorkFailedError as error:
            if own:
                raise SetupError(f"Setup.step fails when it is rehearsed\n  {error}") from error
            reason = f"the rehearsal failed: {error}"
    return {group: _not_run(table, reason) for group, table in judges.items()} | skipped


def _not_run(table: list[LoopCheck], reason: str) -> Outcomes:
    return [(check.NAME, NotRun(reason, missing=True)) for check in table]


def _rehearse(judges: Mapping[str, list[LoopCheck]], setup: Setup) -> Mapping[str, Outcomes]:
    observed = rehearse(setup)
    return {group: judge(table, observed) for group, table in judges.items()}


def _described(subject: Subject) -> tuple[tuple[str, str], ...]:
    model = subject.setup.model
    parameters = subject.graph.parameters.values()
    count = sum(leaf.value.numel() for leaf in parameters)
    batch = [leaf for leaf in subject.graph.leaves.values() if leaf.kind == "batch"]
    shapes = ", ".join(f"{leaf.path} {tuple(leaf.value.shape)}" for leaf in batch)
    return (
        ("model", f"{type(model).__name__}, {count:,} entries in {len(parameters)} parameters"),
        ("batch", shapes or "no tensors"),
        ("graph", f"{len(subject.graph.nodes)} unit formulas of {len({n.op for n in subject.graph.nodes})} kinds"),
    )
