"""The formulas are torch's: the same numbers over several steps, in float64, with a large rate and decay."""

import pytest
import torch
from torch import optim

from chainrule.update_rules import OF_TORCH, claimed_by, possible, rule_of_torch
from chainrule.update_rules.muon import of_singular_values, orthogonal

LARGE = {"lr": 0.1, "weight_decay": 0.1}
VARIANTS = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"momentum": 0.9, "maximize": True}),
    (optim.RMSprop, {}),
    (optim.RMSprop, {"centered": True}),
    (optim.RMSprop, {"momentum": 0.9, "maximize": True}),
    (optim.RMSprop, {"momentum": 0.9, "centered": True, "eps": 1e-3}),
    (optim.Adagrad, {}),
    (optim.Adagrad, {"lr_decay": 0.5, "initial_accumulator_value": 0.1}),
    (optim.Adagrad, {"maximize": True}),
    (optim.Adam, {}),
    (optim.Adam, {"amsgrad": True}),
    (optim.Adam, {"betas": (0.5, 0.6), "eps": 1e-3, "maximize": True}),
    (optim.AdamW, {}),
    (optim.AdamW, {"amsgrad": True, "maximize": True}),
    (optim.AdamW, {"foreach": True, "betas": (0.8, 0.95)}),
    (optim.AdamW, {"fused": True}),
    (optim.Adafactor, {}),
    (optim.Adafactor, {"d": 2.0, "beta2_decay": -0.5, "maximize": True}),
    (optim.Adafactor, {"eps": (1e-6, 1e-2)}),
]
SHAPES = [(4, 3), (3, 5), (6,), (2, 3, 4), ()]


def gradients_of(shape, step):
    """Large ones, and some near epsilon."""
    generator = torch.Generator().manual_seed(step)
    size = 10 ** (4 * torch.rand(shape, generator=generator, dtype=torch.float64) - 3)
    return size * 1e-6 ** (step % 2) * torch.randn(shape, generator=generator, dtype=torch.float64)


def largest_difference(kind, options, shape, rule=None):
    """Between torch's parameter and the formula's, over five steps with a rate that changes."""
    param = torch.nn.Parameter(
        torch.linspace(-1, 1, max(1, torch.Size(shape).numel()), dtype=torch.float64).reshape(shape)
    )
    optimizer = kind([param], **LARGE, **options)
    ours, state, worst = param.detach().clone(), {}, 0.0
    for step in range(5):
        (settings,) = optimizer.param_groups
        settings["lr"] = [0.1, 0.05, 0.2, 0.1, 0.01][step]
        param.grad = gradients_of(shape, step)
        ours, state = (rule or rule_of_torch(kind, settings)).update(ours, param.grad.clone(), state, settings)
        optimizer.step()
        worst = max(worst, float((ours - param.detach()).abs().max()))
    return worst


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_formula_gives_the_numbers_of_torch(kind, options, shape):
    assert largest_difference(kind, options, shape) < 1e-12


@pytest.mark.parametrize("shape", [(4, 3), (3, 8), (32, 16), (7, 7)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}, {"momentum": 0.5, "ns_steps": 3}], ids=str
)
def test_muon_gives_the_numbers_of_torch_within_the_bfloat16_of_newton_schulz(options, shape):
    (param,) = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64))]
    optimizer, state = optim.Muon([param], **LARGE, **options), {}
    for step in range(3):
        (settings,) = optimizer.param_groups
        before, param.grad = param.detach().clone(), torch.randn(shape, dtype=torch.float64) * 10.0**-step
        rule = rule_of_torch(optim.Muon, settings)
        ours, state = rule.update(before, param.grad.clone(), state, settings)
        optimizer.step()
        assert (ours - param.detach()).norm() < rule.resolution / 2 * (ours - before).norm()


def test_newton_schulz_of_a_matrix_is_that_of_its_singular_values():
    matrix, settings = torch.randn(5, 8, dtype=torch.float64), {"ns_steps": 4}
    u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
    expected = u * of_singular_values(sigma / matrix.norm(), settings) @ vh

    assert (expected - orthogonal(matrix, settings)).abs().max() < 1e-13  # 4 iterations of a few roundings


def lion(param, grad, mean, *, lr, beta1, beta2, decay):
    """One entry of the paper's algorithm 2 in plain numbers."""
    mixed = beta1 * mean + (1 - beta1) * grad
    return param - lr * ((mixed > 0) - (mixed < 0) + decay * param), beta2 * mean + (1 - beta2) * grad


def test_lion_is_what_plain_numbers_give():
    settings = {"lr": 0.1, "betas": (0.9, 0.5), "weight_decay": 0.1}
    ours, state, plain, mean = torch.tensor([1.0], dtype=torch.float64), {}, 1.0, 0.0
    for grad in (1.0, -0.3, -2.0, 0.1):
        ours, state = claimed_by("Lion").update(ours, torch.tensor([grad], dtype=torch.float64), state, settings)
        plain, mean = lion(plain, grad, mean, lr=0.1, beta1=0.9, beta2=0.5, decay=0.1)
        assert abs(float(ours) - plain) < 1e-15


@pytest.mark.parametrize("kind", OF_TORCH, ids=lambda kind: kind.__name__)
def test_no_other_formula_fits_where_it_should_not(kind):
    """Each formula differs visibly from all others that the same settings suffice for, or it could not be told apart."""
    options = {"momentum": 0.9} if kind is optim.SGD else {}
    shape = (6, 4)
    settings = kind([torch.nn.Parameter(torch.zeros(shape))], **LARGE, **options).param_groups[0]
    right = rule_of_torch(kind, settings)
    twins = [
        rule.name
        for rule in possible(settings)
        if rule is not right and largest_difference(kind, options, shape, rule) < max(1e-6, right.resolution / 10)
    ]
    assert twins == []


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("AdamW", "AdamW"),
        ("MyAdamW", "AdamW"),
        ("Custom_SGD", "SGD"),
        ("SimpleLionOptimizer", "Lion"),
        ("AdamW2", "AdamW"),
        ("AdamW8bit", None),
        ("CautiousAdamW", None),
        ("NAdam", None),
        ("Optimizer", None),
    ],
)
def test_a_name_claims_a_formula_only_if_nothing_else_is_in_it(name, claimed):
    rule = claimed_by(name)
    assert claimed == (rule.name if rule else None)
