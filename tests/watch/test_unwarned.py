"""Work without warnings leaves Python's memory of which lines have warned as it was."""

from __future__ import annotations

import warnings

import pytest

from chainrule.watch.unwarned import unwarned


def warn() -> None:
    warnings.warn("of the user", UserWarning, stacklevel=1)


def test_a_line_that_has_warned_does_not_warn_again_after_work_that_was_quiet():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        warn()
        with unwarned():
            warn()
        warn()
    assert 1 == len(shown)


def test_what_was_quiet_is_not_remembered_as_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        with unwarned():
            warn()
        assert [] == shown
        warn()
    assert 1 == len(shown)


def test_warnings_that_are_errors_are_quiet_inside_and_errors_afterwards():
    before = list(warnings.filters)
    with unwarned():
        warn()
    assert before == list(warnings.filters)
    with pytest.raises(UserWarning, match="of the user"):
        warn()


def test_the_users_own_filter_that_is_alike_stays():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = list(warnings.filters)
        with unwarned():
            pass
        assert before == list(warnings.filters)
