"""`huber(delta=0.7)`: a loss with its settings, as it is written in a file or on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.errors import ConfigError
from chainrule.losses import CATALOGUE
from chainrule.losses.called import LIMITS, loss_called, numbers_of, written


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("huber", "huber", {}),
        ("huber()", "huber", {}),
        ("huber(delta=0.7)", "huber", {"delta": 0.7}),
        (" binary-focal( gamma = 1, alpha=.3 ) ", "binary-focal", {"gamma": 1.0, "alpha": 0.3}),
        ("log-loss(positive_weight=1e2)", "log-loss", {"positive_weight": 100.0}),
    ],
)
def test_name_and_settings_are_read(text, name, settings):
    loss, found = loss_called(text)

    assert (name, settings) == (loss.name, found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hubert(delta=1)", r"no loss is called 'hubert'; did you mean huber\?"),
        ("huber(detla=1)", r"'huber\(detla=1\)': huber has no setting 'detla'; did you mean delta\?"),
        ("mse(delta=1)", r"mse has no setting 'delta'; it has none"),
        ("quantile(level=2)", r"level is 2; a number above 0 and below 1 is needed"),
        ("huber(delta=0)", r"delta is 0; a number above 0 and below inf is needed"),
        ("huber(delta=wide)", r"delta is wide; a number above 0"),
        ("huber(delta)", r"delta is not given; a number above 0"),
        ("binary-focal(alpha=1.5)", r"alpha is 1.5; a number from 0 to 1 is needed"),
        ("huber delta=1", r"'huber delta=1' names no loss; expected NAME or NAME\(setting=number\)"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(ConfigError, match=words):
        loss_called(text)


def test_every_setting_that_is_a_number_has_limits():
    defaults = {
        name
        for loss in CATALOGUE
        for name, default in (loss.function.__kwdefaults__ or {}).items()
        if isinstance(default, float)
    }

    assert defaults == set(LIMITS)


@given(st.sampled_from(CATALOGUE), st.floats(0.01, 0.99))
def test_what_is_written_is_read(loss, value):
    settings = dict.fromkeys(numbers_of(loss), float(f"{value:g}"))

    assert (loss, settings) == loss_called(written(loss, settings))
