"""What is to be read of a loss: its page in the terminal, and docs/losses.md."""

import importlib.util
from pathlib import Path

import pytest

from chainrule.losses import CATALOGUE, loss_named
from chainrule.losses.curves import along
from chainrule.losses.page import page

SCRIPT = Path(__file__).parents[2] / ".ci" / "losses_page.py"


def test_the_page_of_all_losses_is_what_the_catalogue_says():
    spec = importlib.util.spec_from_file_location("losses_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run `python .ci/losses_page.py`"


def test_what_the_naive_form_gives_where_it_breaks_is_computed():
    there = dict(page(loss_named("log-cosh")))["there"]

    assert "naive inf, norm of its gradient nan; this 119.3, norm of its gradient 1" == there


def test_settings_are_listed_with_their_defaults():
    assert "gamma = 2.0, alpha = 0.25" == dict(page(loss_named("binary-focal")))["settings"]
    assert "none" == dict(page(loss_named("mse")))["settings"]


@pytest.mark.parametrize("loss", CATALOGUE, ids=lambda loss: loss.name)
def test_the_drawn_slope_is_that_of_the_drawn_loss(loss):
    curve = along(loss)
    rise = [after - before for before, after in zip(curve.loss, curve.loss[1:], strict=False)]
    run = curve.x[1] - curve.x[0]
    middle = [(before + after) / 2 * run for before, after in zip(curve.slope, curve.slope[1:], strict=False)]
    largest = max(abs(slope) for slope in curve.slope) * run

    assert middle == pytest.approx(rise, abs=0.51 * largest)  # one interval may hold a kink
    assert sum(middle) == pytest.approx(sum(rise), abs=1.1 * largest)


def test_a_setting_changes_the_curve_and_delta_its_reach():
    curve = along(loss_named("huber"), {"delta": 0.5})

    assert 0.5 == max(curve.slope)
    assert 2.0 == max(curve.x)
