"""The complex step on holomorphic functions, and its refusal of others."""

import pytest
import torch

from chainrule.errors import ChainruleError
from chainrule.numdiff.complex_step import complex_step


def test_it_is_exact_to_rounding():
    base = torch.linspace(-3, 3, 100, dtype=torch.float64)
    estimate = complex_step(lambda t: torch.exp(torch.sin(base + t)), torch.full_like(base, 2.0**-100))

    exact = torch.cos(base) * torch.exp(torch.sin(base))
    torch.testing.assert_close(estimate.value, exact, rtol=1e-15, atol=1e-15)
    assert bool(((estimate.value - exact).abs() <= estimate.bar).all())
    assert float(estimate.bar.max()) < 1e-13


def test_the_step_can_be_absurdly_small():
    assert 2.0 == float(complex_step(lambda t: (1 + t) ** 2, h=1e-250).value)


def test_a_function_that_drops_the_imaginary_part_is_refused():
    with pytest.raises(ChainruleError, match="drops the imaginary part"):
        complex_step(lambda t: (1 + t).real ** 2)
