"""A pytest plugin: in CI a test that is skipped without an accepted reason fails the run."""

import os
import re

import pytest

# The reasons for which CI accepts that a test is skipped.
EXPLAINED = re.compile(r"CUDA|cuda|GPU|root reads every file|CHAINRULE_REAL_FAULTS")


def unexplained(reporter):
    """The reasons of skipped tests that CI does not accept."""
    reasons = [
        str(report.longrepr[2]) for report in reporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)
    ]
    return sorted({reason for reason in reasons if not EXPLAINED.search(reason)})


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    """In CI a test that is skipped for another reason than the known ones fails the run: nothing is left out unseen."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "CI" not in os.environ or reporter is None or hasattr(session.config, "workerinput"):
        return
    if unexplained(reporter) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """Say which skips CI does not accept."""
    if "CI" in os.environ:
        for reason in unexplained(terminalreporter):
            terminalreporter.write_line(f"ERROR: skipped in CI without an accepted reason: {reason}", red=True)
