"""The error over the step: a V."""

import math

import pytest
import torch

from chainrule.numdiff.sweep import plot, sweep, table


@pytest.fixture
def result():
    return sweep(lambda t: torch.exp(torch.sin(1 + t)), math.cos(1) * math.exp(math.sin(1)))


def test_the_curve_is_a_v_truncation_to_the_right_and_round_off_to_the_left(result):
    h, error = result.best("forward")

    assert 1e-9 < h < 1e-6
    assert error < 1e-7
    assert result.errors["forward"][0] > 1e-3
    assert result.errors["forward"][-1] > 1e-4


def test_higher_orders_reach_smaller_errors_at_longer_steps(result):
    bests = [result.best(method) for method in ("forward", "central", "order8")]

    assert bests[0][0] < bests[1][0] < bests[2][0]
    assert bests[0][1] > bests[1][1] > bests[2][1]


@pytest.mark.parametrize(("method", "slope"), [("forward", 1), ("central", 2), ("order8", 8)])
def test_truncation_falls_with_the_order_of_the_method(method, slope):
    found = sweep(lambda t: torch.exp(torch.sin(1 + t)), math.cos(1) * math.exp(math.sin(1)), [0.2, 0.1])

    longer, shorter = found.errors[method]
    assert slope == pytest.approx(math.log2(longer / shorter), abs=0.35)


def test_the_table_has_a_row_per_step(result):
    rows = table(result)

    assert ("h", "forward", "central", "order8") == rows[0]
    assert len(rows) == len(result.h) + 1


def test_the_plot_shows_the_three_methods_and_names_the_two_sides(result):
    drawing = plot(result)

    assert {"f", "c", "8"} <= set("".join(drawing.splitlines()[1:-3]))
    assert "left: round-off      right: truncation" in drawing
    assert max(len(line) for line in drawing.splitlines()) < 110
