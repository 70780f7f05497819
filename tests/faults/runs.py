"""Runs a case: `check` on a set-up, `watch` around a loop."""

from __future__ import annotations

import chainrule as cr
from chainrule.checks.groups import FAILED
from faults.case import Case, Loop


def report_on(case: Case, *, broken: bool) -> cr.Report:
    """What chainrule says of the case; only its own check runs, so that many cases take little time."""
    report = _report(case.build(broken), case)
    refused = [refusal.reason for stage in report.stages for refusal in stage.not_run.values()]
    assert not [reason for reason in refused if reason.startswith(FAILED)]
    return report


def _report(built: cr.Setup | Loop, case: Case) -> cr.Report:
    if isinstance(built, cr.Setup):
        return cr.check(built, only=(case.check,))
    with cr.watch(only=(case.check,)) as watch:
        built()
    return watch.report
