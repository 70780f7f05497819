"""ECnoise on functions whose noise is planted."""

import math

import pytest
import torch

from chainrule.errors import ChainruleError
from chainrule.numdiff.noise import difference_table_noise, measure_noise, sigmas


def noisy(function, level: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda t: function(t) + level * torch.randn(t.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("level", [1e-14, 1e-10, 1e-6])
def test_planted_gaussian_noise_is_found_within_a_factor_of_four(level):
    found = [measure_noise(noisy(torch.cos, level, seed)).level for seed in range(50)]

    assert level / 4 < min(found)
    assert max(found) < 4 * level


def test_real_rounding_noise_of_a_long_sum_is_found_within_a_factor_of_ten():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(20_000, generator=generator, dtype=torch.float64)

    def line(t):
        return torch.stack([torch.sin(weights + s).cumsum(0)[-1] for s in t])

    exact = [math.fsum(math.sin(w + k * 1e-9) for w in weights.tolist()) for k in range(40)]
    computed = line(1e-9 * torch.arange(40, dtype=torch.float64))
    true_noise = float((computed - torch.tensor(exact, dtype=torch.float64)).std())

    assert true_noise / 10 < measure_noise(line).level < 10 * true_noise


def test_the_spacing_is_widened_when_all_values_are_equal_to_rounding():
    noise = measure_noise(lambda t: 1 + 1e-8 * torch.sin(t), spacing=1e-9)

    assert noise.evaluations > 9
    assert math.ulp(1.0) / 4 < noise.level < 4 * math.ulp(1.0)


def test_the_spacing_is_narrowed_when_the_function_itself_moves():
    noise = measure_noise(noisy(lambda t: torch.exp(1e4 * t), 1e-12), spacing=1e-2)

    assert noise.evaluations > 9
    assert 1e-13 < noise.level < 1e-11


def test_a_constant_function_has_the_noise_of_rounding_its_value():
    noise = measure_noise(lambda t: torch.full_like(t, 5.0))

    assert math.ulp(5.0) / math.sqrt(12) == noise.level
    assert "does not change" in noise.reason


def test_noise_of_a_function_that_is_not_finite_is_an_error():
    with pytest.raises(ChainruleError, match="not finite near the base point"):
        measure_noise(lambda t: torch.log(t))


def test_each_sigma_estimates_the_standard_deviation_of_white_noise():
    generator = torch.Generator().manual_seed(0)
    draws = [sigmas(torch.randn(9, generator=generator, dtype=torch.float64)) for _ in range(4000)]

    mean_square = torch.tensor(draws, dtype=torch.float64).square().mean(dim=0)

    assert [1.0] * 8 == pytest.approx(mean_square.tolist(), rel=0.1)


def test_a_smooth_function_without_visible_noise_is_not_taken_for_noise():
    t = 0.1 * torch.arange(9, dtype=torch.float64)

    assert (None, "too large") == difference_table_noise(1 + 0.01 * torch.sin(3 * t))
