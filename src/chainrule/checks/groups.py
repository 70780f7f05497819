"""The groups of checks beyond the gradient's stages, in the order in which they run, and what runs one of them.

A check is a module: its docstring is its page, NAME its name. One with `check(subject)` looks at the set-up before
training; one with `judge(observed)` looks at the events of a loop, be it the user's own or the rehearsal of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol, TypeAlias

from chainrule.checks import dependence, equivalence, loop, numeric, parameters, ranks, search, statistics, update
from chainrule.checks.gradient.extra import EXTRA
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome, StageResult, verdict_of
from chainrule.watch.observed import Observed
from chainrule.watch.unwarned import unwarned


class SubjectCheck(Protocol):
    """A module whose `check` looks at the set-up."""

    NAME: str

    def check(self, subject: Subject) -> Outcome:
        """What was found, or why the check could not be made."""


class LoopCheck(Protocol):
    """A module whose `judge` looks at what a loop did."""

    NAME: str

    def judge(self, observed: Observed) -> Outcome:
        """What was found, or why the check could not be made."""


FAILED = "its probe fails here"
NEWLINE = "\n"

# (name of the check, what came of it)
Outcomes: TypeAlias = list[tuple[str, Outcome]]

CHECKS: Mapping[str, tuple[SubjectCheck, ...]] = MappingProxyType(
    {
        "gradient": EXTRA,
        "parameters": parameters.CHECKS,
        "dependence": dependence.CHECKS,
        "equivalence": equivalence.CHECKS,
        "statistics": statistics.CHECKS,
        "numeric": numeric.CHECKS,
        "update": update.CHECKS,
    }
)
JUDGES: Mapping[str, tuple[LoopCheck, ...]] = MappingProxyType(
    {"update": update.JUDGES, "loop": loop.JUDGES, "statistics": statistics.JUDGES, "numeric": numeric.JUDGES}
)
# Of programs of several processes; judged only where there are several.
AMONG_RANKS: Mapping[str, tuple[LoopCheck, ...]] = MappingProxyType({"ranks": ranks.JUDGES})
# Dear: they compile or train, and run only when they are asked for by name.
ON_REQUEST: Mapping[str, tuple[SubjectCheck, ...]] = MappingProxyType(
    {"equivalence": equivalence.ON_REQUEST, "search": search.ON_REQUEST}
)


def examine(checks: Iterable[SubjectCheck], subject: Subject) -> Outcomes:
    """Run each check on the subject."""
    return [(check.NAME, outcome_of(partial(check.check, subject))) for check in checks]


def judge(checks: Iterable[LoopCheck], observed: Observed) -> Outcomes:
    """Let each check look at what was observed."""
    return [(check.NAME, outcome_of(partial(check.judge, observed))) for check in checks]


def outcome_of(check: Callable[[], Outcome]) -> Outcome:
    """What the check says. A probe that the user's code does not bear is told, and takes nothing else with it."""
    with unwarned():  # they are the user's; the user's own run shows them
        try:
            return check()
        except Exception as error:
            return NotRun(f"{FAILED}: {type(error).__name__}: {str(error).partition(NEWLINE)[0]}", missing=True)


def summarised(group: str, run: Callable[[], Outcomes]) -> tuple[StageResult, list[Finding]]:
    """One line of the report for a whole group, with the reason for every check that could not be made."""
    start = time.perf_counter()
    outcomes = run()
    findings = [finding for _, outcome in outcomes if not isinstance(outcome, NotRun) for finding in outcome]
    not_run = {name: outcome for name, outcome in outcomes if isinstance(outcome, NotRun)}
    verdict = None if len(not_run) == len(outcomes) else verdict_of(tuple(findings))
    seconds = time.perf_counter() - start
    return StageResult(group, verdict, _summary(outcomes, len(not_run)), None, seconds, not_run), findings


def _summary(outcomes: Outcomes, not_run: int) -> str:
    speaking = [name for name, outcome in outcomes if not isinstance(outcome, NotRun) and outcome]
    silent = len(outcomes) - len(speaking) - not_run
    return ", ".join(
        part
        for part in (
            f"{' and '.join(speaking)} found something" if speaking else "",
            f"{silent} {'check' if silent == 1 else 'checks'} silent" if silent else "",
            f"{not_run} not run" if not_run else "",
        )
        if part
    )
