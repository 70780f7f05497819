"""Planted backward faults: the plants are what they claim, and (below) the check catches and names them."""

from __future__ import annotations

import pytest
import torch

from faults.backward.plant import SIZES, Plant, gradients
from faults.backward.plants import PLANTS

every_plant = pytest.mark.parametrize("plant", PLANTS, ids=str)


def test_at_least_thirty_kinds_of_fault_are_planted_at_more_than_ten_modules():
    assert len({plant.kind for plant in PLANTS}) >= 30
    assert len({plant.module_path for plant in PLANTS}) > 10
    assert len({(plant.kind, plant.site) for plant in PLANTS}) == len(PLANTS)


@every_plant
def test_a_plant_is_wrong_by_the_size_that_it_is_given(plant: Plant):
    assert plant.measured(torch.float64) > 5e-7
    if plant.scalable:
        for size in SIZES:
            assert plant.measured(torch.float64, size) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("plant", {plant.module_path: plant for plant in PLANTS}.values(), ids=lambda p: p.module_path)
def test_a_twin_has_the_gradients_of_torchs_own_function(plant: Plant):
    twin, loss, batch = plant.twin(torch.float64)
    found = gradients(twin, loss, batch)
    twin.zero_grad()
    twin.get_submodule(plant.module_path).function = None
    expected = gradients(twin, loss, batch)
    largest = max(float(gradient.norm()) for gradient in expected.values())
    if plant.site != "dropout":  # its masks come from other draws than torch's
        assert all(torch.allclose(expected[name], found[name], rtol=0, atol=1e-13 * largest) for name in expected)
    assert found.keys() == expected.keys()
