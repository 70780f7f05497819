"""Planted backward faults: the plants are what they claim, and (below) the check catches and names them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from _pytest.mark.structures import ParameterSet

import chainrule as cr
from chainrule.checks.gradient import STAGES
from faults.backward.plant import DTYPES, SIZES, Plant, gradients
from faults.backward.plants import PLANTS

PROOF = [name for name, _ in STAGES.values()]  # the groups beyond the gradient have cases of their own
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


@pytest.mark.parametrize(
    "plant", list({plant.module_path: plant for plant in PLANTS}.values()), ids=lambda p: p.module_path
)
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


def is_inside(where: str, plant: Plant) -> bool:
    """Whether a finding's place lies in the planted module, or in one whose tensor the fault overwrites."""
    return any(f"{where}.".startswith(f"{path}.") for path in (plant.module_path, *plant.victims))


# One plant of each kind, in turn in each dtype, at the smallest size that has to be seen there. The whole set, in every
# dtype and size, is benchmarks/mutation_score.py.
ONE_OF_EACH_KIND = tuple({plant.kind: plant for plant in reversed(PLANTS)}.values())
SMALLEST = {torch.float64: 1e-4, torch.float32: 1e-4, torch.bfloat16: 1e-2}


def in_turn() -> Iterator[ParameterSet]:
    for number, plant in enumerate(ONE_OF_EACH_KIND):
        dtype = plant.dtypes[number % len(plant.dtypes)]
        yield pytest.param(plant, dtype, SMALLEST[dtype] if plant.scalable else None, id=f"{plant}-{dtype}")


@pytest.mark.parametrize(("plant", "dtype", "size"), list(in_turn()))
def test_check_catches_a_planted_fault_and_names_its_module(plant: Plant, dtype: torch.dtype, size: float | None):
    model, loss, batch = plant.build(dtype, size)
    report = cr.check(cr.Setup(model, loss, [batch]), only=PROOF)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert not report.ok
    assert {"gradient-mismatch"} == {finding.check for finding in errors}
    assert is_inside(errors[0].where, plant), errors[0].where


def every_site() -> Iterator[ParameterSet]:
    for number, plant in enumerate({plant.module_path: plant for plant in PLANTS}.values()):
        dtype = DTYPES[number % len(DTYPES)]
        yield pytest.param(plant, dtype, id=f"{plant.module_path}-{dtype}")


@pytest.mark.parametrize(("plant", "dtype"), list(every_site()))
def test_check_says_nothing_on_a_correct_twin(plant: Plant, dtype: torch.dtype):
    model, loss, batch = plant.twin(dtype)
    report = cr.check(cr.Setup(model, loss, [batch]), only=PROOF)
    assert [] == [(f.check, f.where, f.message) for f in report.findings if f.severity != "info"]
    assert "pass" == report.verdict


@pytest.mark.parametrize(
    "plant", list({plant.module_path: plant for plant in PLANTS}.values()), ids=lambda p: p.module_path
)
def test_check_says_nothing_on_a_twin_that_rounds_every_step_to_bfloat16(plant: Plant):
    model, loss, batch = plant.twin(torch.bfloat16, wide=False)
    report = cr.check(cr.Setup(model, loss, [batch]), only=PROOF)
    assert [] == [(f.check, f.where, f.message) for f in report.findings if f.severity != "info"]


def test_check_catches_in_its_own_dtype_what_a_kernel_refuses_to_show_in_float64():
    plant = next(plant for plant in PLANTS if plant.kind == "missing softmax coupling")
    for dtype, size in ((torch.float32, 1e-4), (torch.bfloat16, None)):
        model, loss, batch = plant.build(dtype, size, only=True)
        report = cr.check(cr.Setup(model, loss, [batch]), only=PROOF)
        assert "not possible in float64" in next(s.summary for s in report.stages if s.name == "1b your backward")
        assert is_inside(next(f.where for f in report.findings if f.severity == "error"), plant)
