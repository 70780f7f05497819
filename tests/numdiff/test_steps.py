"""Step sizes and the reasons they give."""

import pytest
import torch

from chainrule.numdiff.stencils import ORDER_8, forward, order8
from chainrule.numdiff.steps import central_step, forward_step, relative_step, rms, second_step


@pytest.mark.parametrize(("size", "h"), [(1.0, 0.02), (0.2, 0.02), (0.02, 0.002), (1e-6, 1e-7), (0.0, 0.02)])
def test_the_step_is_a_tenth_of_the_rms_and_at_most_two_hundredths(size, h):
    choice = relative_step(torch.full((3, 4), size, dtype=torch.float32))

    assert h == pytest.approx(choice.h, rel=1e-6)


def test_every_choice_says_why():
    assert "a tenth of the tensor's rms, 0.02" in relative_step(torch.full((5,), 0.02)).reason
    assert "the longest" in relative_step(torch.ones(5)).reason
    assert "the tensor is zero" in relative_step(torch.zeros(5)).reason
    assert "truncation and round-off are equal" in forward_step(1e-16, 1.0).reason


def test_the_forward_step_gives_close_to_the_least_error():
    def error(h: float) -> float:
        return abs(float(forward(lambda t: torch.exp(1 + t), h).value) - torch.e)

    chosen = forward_step(noise=2e-16, second=torch.e).h

    assert 5e-9 < chosen < 5e-8
    assert error(chosen) < 1e-7 < min(error(chosen * 300), error(chosen / 300))


def test_the_central_step_is_the_cube_root_rule():
    assert (3e-16 / 2) ** (1 / 3) == central_step(1e-16, 2.0).h


def test_without_curvature_the_longest_step_is_taken():
    assert 0.02 == forward_step(1e-16, 0.0).h == central_step(1e-16, 0.0).h


def test_the_second_step_is_shorter_where_truncation_dominates_and_longer_where_noise_does():
    scale = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    first = order8(lambda t: torch.sin(0.4 + t / scale), torch.full((3,), 0.02, dtype=torch.float64), noise=1e-16)

    second = second_step(first, ORDER_8)

    assert second[0] < first.h[0]
    assert second[2] > first.h[2]


def test_a_second_estimate_at_the_second_step_has_a_smaller_bar():
    base, noise = torch.linspace(0, 3, 30, dtype=torch.float64), 1e-15

    def line(t):
        return torch.sin((base + t) / 0.01)

    first = order8(line, torch.full_like(base, 0.02), noise)
    second = order8(line, second_step(first, ORDER_8), noise)

    assert float(second.bar.max()) < 1e-6 * float(first.bar.max())
    assert bool(((second.value - 100 * torch.cos(base / 0.01)).abs() <= second.bar).all())


def test_rms_of_an_empty_tensor_is_zero():
    assert rms(torch.empty(0)) == 0.0
