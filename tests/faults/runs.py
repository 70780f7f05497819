"""Runs a case: `check` on a set-up, `watch` around a loop."""

from __future__ import annotations

import chainrule as cr
from faults.case import Case


def report_on(case: Case, *, broken: bool) -> cr.Report:
    """What chainrule says of the case; only its own check runs, so that many cases take little time."""
    built = case.build(broken)
    if isinstance(built, cr.Setup):
        return cr.check(built, only=(case.check,))
    with cr.watch(only=(case.check,)) as watch:
        built()
    return watch.report
