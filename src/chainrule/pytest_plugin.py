"""The fixture `chainrule` for a user's own test suite: a set-up that does not pass fails the test with the report.

def test_my_gradients(chainrule):
    chainrule.check(Setup(model, loss, [batch], optimizer))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chainrule.report import Report
    from chainrule.setups import Setup


class Checker:
    """What the fixture gives."""

    def check(self, setup: Setup, *, unresolved: bool = False, **settings: Any) -> Report:
        """`chainrule.check(setup, **settings)`; fails the test unless the verdict is pass.

        unresolved  True lets a verdict of "unresolved" stand
        """
        from chainrule import api  # a plugin is loaded at the start of every run of pytest; torch should not be

        report = api.check(setup, **settings)
        if not report.ok or (report.verdict == "unresolved" and not unresolved):
            pytest.fail(str(report), pytrace=False)
        return report


@pytest.fixture(scope="session")
def chainrule() -> Checker:
    """`chainrule.check(setup)`: the test fails, with the report as its message, if the set-up does not pass."""
    return Checker()
