"""What is known of a watched loop: its preflights, what the judges have said of its steps, and the report of both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from chainrule.autodiff import loss_of
from chainrule.autodiff.given import evaluate_given
from chainrule.capture.expand import expand
from chainrule.checks.finite import check_finite
from chainrule.checks.groups import AMONG_RANKS, JUDGES, LoopCheck, judge, summarised
from chainrule.checks.subject import Subject
from chainrule.engines import KNOWN
from chainrule.finding import Finding, StageResult
from chainrule.preflight import known_checks, report_on, versions, with_command
from chainrule.report import Report
from chainrule.report.text import closing, finding_text
from chainrule.setups import Setup
from chainrule.watch import memory
from chainrule.watch.ahead import Iteration
from chainrule.watch.observed import Observed
from chainrule.watch.ranks import Ranks

# What needs no float64 copy of all values: for a model that the memory does not hold four times.
IN_OWN_DTYPE = frozenset({"forward-mismatch", "no-rule", "gradient-mismatch", "update-formula"})


class Watch:
    """What is known of a watched loop so far.

    `report` is complete when the loop has ended; before, it holds what was found up to now.
    """

    def __init__(self, only: Collection[str], seed: int, command: str, tell: Callable[[str], None]) -> None:
        self._only, self._seed, self._command, self._tell = known_checks(only), seed, command, tell
        self._preflights: list[Report] = []
        self._refused: list[str] = []
        self._found: list[Finding] = []
        self._groups: dict[str, StageResult] = {}
        self._of_children: list[Report] = []
        self.ranks = Ranks()
        self.keep: Callable[[], None] = lambda: (
            None
        )  # called when something was found, in a process that another one started

    @property
    def report(self) -> Report:
        """Preflight and watch in one."""
        numbered = [(f" ({n})" if n > 1 else "", report) for n, report in enumerate(self._preflights, 1)]
        stages = [replace(stage, name=stage.name + number) for number, report in numbered for stage in report.stages]
        stages += [StageResult("preflight", None, f"not possible: {reason}") for reason in self._refused]
        stages += self._groups.values()
        findings = [finding for report in self._preflights for finding in report.findings] + self._found
        subject = [(label + number, line) for number, report in numbered for label, line in report.subject]
        for report in self._of_children:
            stages, subject = stages or list(report.stages), subject or list(report.subject)
            findings += [finding for finding in report.findings if not _known(finding, findings)]
        return Report(
            findings=tuple(findings),
            stages=tuple(stages),
            subject=tuple(subject),
            seed=self._seed,
            versions=versions(),
            command=self._command,
            notes=tuple(dict.fromkeys(note for report in self._preflights for note in report.notes)),
        )

    @property
    def closing(self) -> str:
        """What is left to say when the loop has ended: what was watched, and the verdict."""
        report = self.report
        if not report.stages:
            return (
                "chainrule: no training step was seen: no model was called for training, and no optimizer made a step"
            )
        return closing(report, tuple(self._groups.values()))

    def examined(self, iteration: Iteration, say: Callable[[str], None]) -> Report:
        """The preflight of a recorded iteration. It runs in the copy."""
        needed, free = memory.needed(iteration.tape), memory.free()
        fits = free is None or needed <= memory.SHARE * free
        there = f", {memory.in_words(free)} are free" if free is not None else ""
        say(f"chainrule: preflight in a copy of the process, at most {memory.in_words(needed)} of memory{there}")
        graph = expand(iteration.tape.graph, KNOWN)
        values = evaluate_given(graph)
        check_finite(graph, loss_of(graph, values), values)
        setup = Setup(iteration.root, iteration.loss, [iteration.batch], iteration.optimizers)
        subject = Subject(setup, iteration.batch, graph, self._seed, self._command, iteration.tape)
        only = self._only if fits else (self._only or IN_OWN_DTYPE) & IN_OWN_DTYPE
        report = report_on(subject, only, lambda _: None, without=("loop",)) if fits or only else Report()
        if not fits:
            left_out = StageResult("float64", None, f"left out: it needs {memory.in_words(needed)}{there}")
            report = replace(report, stages=(*report.stages, left_out))
        place = (
            (("loss", f"{iteration.line.file}:{iteration.line.line}  {iteration.line.code}"),) if iteration.line else ()
        )
        return replace(report, subject=(*report.subject, *place))

    def preflight_done(self, report: Report) -> None:
        """What the copy found."""
        self._preflights.append(report)
        self._tell(str(replace(report, command="")))

    def preflight_refused(self, reason: str) -> None:
        """Why there is no preflight."""
        self._refused.append(reason)
        self._tell(f"chainrule: preflight not possible: {reason}")

    def stepped(self, observed: Observed) -> None:
        """Judge what the loop did up to now; tell what is new."""
        if not observed.events:
            return
        self.judge(JUDGES, observed)
        self.heard(observed)

    def heard(self, observed: Observed) -> None:
        """Judge what the ranks of a distributed run have said."""
        if observed.replicas or observed.disagreements:
            self.judge(AMONG_RANKS, observed)

    def children_done(self, reports: list[Report]) -> None:
        """What was found in the processes that the loop's process started."""
        self._of_children += reports

    def judge(self, tables: Mapping[str, tuple[LoopCheck, ...]], observed: Observed) -> None:
        """Have the checks of some groups look at what was observed; tell what is new."""
        for group, table in tables.items():
            wanted = [check for check in table if not self._only or check.NAME in self._only]
            if wanted:
                self._judged(group, *summarised(f"{group}, watched", partial(judge, wanted, observed)))

    def _judged(self, group: str, result: StageResult, findings: list[Finding]) -> None:
        known = self._groups.get(group)
        spent = result.seconds + (known.seconds if known else 0.0)
        keep = known is not None and known.verdict not in (None, "pass") and result.verdict in (None, "pass")
        self._groups[group] = replace(known if keep and known else result, seconds=spent)
        for finding in findings:
            if not _known(finding, self._found):
                self._found.append(with_command(finding, self._command, self._seed))
                if self.ranks.first(f"told/{finding.check}/{finding.where}"):
                    self._tell(finding_text(self._found[-1]))
                self.keep()


def _known(finding: Finding, findings: list[Finding]) -> bool:
    return any((finding.check, finding.where) == (old.check, old.where) for old in findings)
