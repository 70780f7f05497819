"""Every planted fault is found at its place, and nothing is said of its repaired twin."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import chainrule as cr
import faults
from faults.case import Case
from faults.runs import report_on

GROUPS = sorted(module.name for module in pkgutil.iter_modules(faults.__path__) if module.name.endswith("_faults"))
CASES = [case for group in GROUPS for case in importlib.import_module(f"faults.{group}").CASES]


def by_check(report: cr.Report, case: Case) -> list[cr.Finding]:
    return [f for f in report.findings if f.check == case.check and f.severity != "info"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.check}")
def test_a_planted_fault_is_found_and_located(case):
    findings = by_check(report_on(case, broken=True), case)
    assert findings, f"{case.check} is silent on: {case.fault}"
    named = [f"{f.where} {f.source.code if f.source else ''}" for f in findings]
    assert any(case.where in place for place in named), named


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id}-{case.check}")
def test_its_repaired_twin_is_silent(case):
    assert [str(f.message) for f in by_check(report_on(case, broken=False), case)] == []


def test_no_case_is_there_twice():
    assert sorted({case.id for case in CASES}) == sorted(case.id for case in CASES)
