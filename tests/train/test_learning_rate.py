"""The learning rate's course."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.train.config import ScheduleConfig
from chainrule.train.config_update import ScheduleName
from chainrule.train.schedule import learning_rate


def course(steps=9, peak=2.0, reductions=0, **settings):
    schedule = ScheduleConfig(**{"warmup_steps": 4, "final_fraction": 0.1} | settings)
    return [learning_rate(step, steps, peak, schedule, reductions) for step in range(steps)]


def test_it_rises_to_the_peak_and_falls_to_its_final_share_by_half_a_cosine():
    rates = course()

    assert [0.5, 1.0, 1.5, 2.0] == rates[:4]
    assert 2.0 == rates[4]
    assert 2.0 * 0.55 == pytest.approx(rates[6])
    assert 0.2 == pytest.approx(rates[8])


def test_a_linear_course_falls_by_the_same_amount_each_step():
    assert [2.0, 1.55, 1.1, 0.65, 0.2] == pytest.approx(course(name="linear")[4:])


def test_a_constant_course_stays_at_the_peak():
    assert [2.0] * 5 == course(name="constant")[4:]


def test_one_cycle_rises_for_three_tenths_and_falls_to_its_final_share():
    rates = course(steps=101, name="one-cycle", final_fraction=0.0)

    assert 2.0 / 25 == pytest.approx(rates[0])
    assert 2.0 == pytest.approx(max(rates)) == rates[30]
    assert 0.0 == pytest.approx(rates[-1])


def test_a_plateau_multiplies_the_rate_down_to_its_floor():
    rates = [course(name="plateau", plateau_factor=0.5, reductions=times)[8] for times in range(6)]

    assert [2.0, 1.0, 0.5, 0.25, 0.2, 0.2] == pytest.approx(rates)


@given(st.sampled_from(get_args(ScheduleName)), st.integers(0, 300), st.integers(1, 200), st.floats(0, 1))
def test_it_is_never_zero_before_the_end_nor_above_the_peak(name, warmup, steps, final):
    rates = course(steps, 1.0, name=name, warmup_steps=warmup, final_fraction=final)

    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert 0 <= rates[-1] <= 1
