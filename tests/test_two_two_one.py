"""The smallest network with pencil and paper: every derivative of the example against its formula by hand."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "two_two_one.py"
WEIGHTS = {"w1": 0.5, "w2": -1.0, "w3": 0.25, "w4": 0.75, "w5": 1.5, "w6": -0.5, "b1": 0.1, "b2": -0.2, "b3": 0.3}


def sigmoid(s):
    return 1 / (1 + math.exp(-s))


@pytest.fixture(scope="module")
def example():
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def paper():
    """Values and local derivatives, each written down by hand."""
    v = SimpleNamespace(x1=-2.0, x2=-1.0, ytrue=1.0, **WEIGHTS)
    v.h1 = sigmoid(v.w1 * v.x1 + v.w2 * v.x2 + v.b1)
    v.h2 = sigmoid(v.w3 * v.x1 + v.w4 * v.x2 + v.b2)
    v.ypred = sigmoid(v.w5 * v.h1 + v.w6 * v.h2 + v.b3)
    v.L = (v.ytrue - v.ypred) ** 2
    slope_ypred, slope_h1, slope_h2 = (y * (1 - y) for y in (v.ypred, v.h1, v.h2))
    v.local = {
        "d_L_d_ypred": -2 * (v.ytrue - v.ypred),
        "d_ypred_d_w5": v.h1 * slope_ypred,
        "d_ypred_d_w6": v.h2 * slope_ypred,
        "d_ypred_d_b3": slope_ypred,
        "d_ypred_d_h1": v.w5 * slope_ypred,
        "d_ypred_d_h2": v.w6 * slope_ypred,
        "d_h1_d_w1": v.x1 * slope_h1,
        "d_h1_d_w2": v.x2 * slope_h1,
        "d_h1_d_b1": slope_h1,
        "d_h2_d_w3": v.x1 * slope_h2,
        "d_h2_d_w4": v.x2 * slope_h2,
        "d_h2_d_b2": slope_h2,
    }
    return v


def test_every_local_derivative_is_the_textbooks_by_all_three_engines(example, paper):
    found = {}
    for formula, names in example.INPUTS.items():
        found |= example.derivatives([formula], {name: getattr(paper, name) for name in names})

    for name, expected in paper.local.items():
        autograd, chain_rule, numerical = found[name]

        assert pytest.approx(expected, rel=1e-14) == autograd, name
        assert pytest.approx(expected, rel=1e-14) == chain_rule, name
        assert pytest.approx(expected, rel=1e-10) == numerical, name


def test_the_networks_derivatives_are_products_along_the_paths(example, paper):
    whole = example.derivatives(list(example.FORMULAS), WEIGHTS)
    d = paper.local
    through_h1 = d["d_L_d_ypred"] * d["d_ypred_d_h1"]
    through_h2 = d["d_L_d_ypred"] * d["d_ypred_d_h2"]
    products = {
        **{f"d_L_d_{name}": through_h1 * d[f"d_h1_d_{name}"] for name in ("w1", "w2", "b1")},
        **{f"d_L_d_{name}": through_h2 * d[f"d_h2_d_{name}"] for name in ("w3", "w4", "b2")},
        **{f"d_L_d_{name}": d["d_L_d_ypred"] * d[f"d_ypred_d_{name}"] for name in ("w5", "w6", "b3")},
    }

    assert products.keys() == whole.keys()
    for name, expected in products.items():
        autograd, chain_rule, numerical = whole[name]

        assert pytest.approx(expected, rel=1e-13) == autograd, name
        assert pytest.approx(expected, rel=1e-13) == chain_rule, name
        assert pytest.approx(expected, rel=1e-10) == numerical, name


def test_an_influence_of_500_overshoots_at_rate_a_hundredth_and_not_at_a_hundred_thousandth():
    train = runpy.run_path(str(EXAMPLE.with_name("learning_rate.py")))["train"]
    fast, slow = train(0.01), train(0.00001)

    assert 500.0 == fast[0][1] == slow[0][1]
    assert -4.0 == pytest.approx(fast[1][0])  # the update is 5, the weight that fits was 0.4 away
    assert fast[0][2] < fast[1][2] < fast[2][2] < fast[3][2]
    assert slow[0][2] > slow[1][2] > slow[2][2] > slow[3][2]
    assert 0.995 == pytest.approx(slow[1][0])
