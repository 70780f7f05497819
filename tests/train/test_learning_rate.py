"""The learning rate's course."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.train.config import ScheduleConfig
from chainrule.train.schedule import learning_rate


def test_it_rises_to_the_peak_and_falls_to_its_final_share():
    schedule = ScheduleConfig(warmup_steps=4, final_fraction=0.1)
    rates = [learning_rate(step, 9, 2.0, schedule) for step in range(9)]

    assert [0.5, 1.0, 1.5, 2.0] == rates[:4]
    assert 2.0 == rates[4]
    assert 2.0 * 0.55 == pytest.approx(rates[6])
    assert 0.2 == pytest.approx(rates[8])


@given(st.integers(0, 300), st.integers(1, 200), st.floats(0, 1))
def test_it_is_never_zero_before_the_end_nor_above_the_peak(warmup, steps, final):
    schedule = ScheduleConfig(warmup, final)
    rates = [learning_rate(step, steps, 1.0, schedule) for step in range(steps)]

    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert 0 <= rates[-1] <= 1
