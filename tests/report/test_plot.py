"""Curves in plain characters."""

import math

from chainrule.report.plot import Series, plot


def test_a_line_goes_from_corner_to_corner():
    lines = plot([Series("loss", [0, 1, 2], [0.0, 1.0, 2.0])], axis="x", width=5, height=4)

    assert [
        "       2 ┤    ●",
        "         │",
        "         │  ●",
        "         │",
        "       0 ┤●",
        "         └─────",
        "          0   2",
        "          ● loss      →  x",
    ] == lines


def test_the_zero_line_is_drawn_and_each_curve_has_its_mark():
    lines = plot([Series("a", [0, 4], [1, 1]), Series("b", [0, 4], [-1, -1])], axis="step", width=5, height=4)

    assert "       1 ┤●   ●" == lines[0]
    assert "         │·····" == lines[2]
    assert "      -1 ┤○   ○" == lines[4]
    assert "          ● a   ○ b      →  step" == lines[-1]


def test_points_that_are_not_finite_are_left_out():
    lines = plot([Series("a", [0, 1, 2], [0.0, math.inf, 1.0])], axis="x", width=3, height=2)

    assert 2 == sum(line.count("●") for line in lines[:-1])


def test_a_curve_without_a_finite_point_is_said_to_have_none():
    assert ["nothing to draw: no finite point of a"] == plot([Series("a", [0], [math.nan])], axis="x")


def test_a_constant_is_a_line_in_the_middle():
    lines = plot([Series("a", [0, 1], [3.0, 3.0])], axis="x", width=2, height=2)

    assert "         │●●" == lines[1]


def test_numbers_at_the_left_differ_also_where_the_range_is_narrow():
    lines = plot([Series("a", [0, 1], [2.6001, 2.6009])], axis="x", width=4, height=8)

    assert ["2.6009", "2.6005", "2.6001"] == [line.split()[0] for line in lines if "┤" in line]
