"""What an optimizer does to one weight is told as its formula says, agrees with its own steps, and changes nothing."""

import copy
import re

import pytest
import torch
from torch import nn

import chainrule as cr
from chainrule import cli
from chainrule.capture import promote
from chainrule.errors import SetupError
from chainrule.explain.updates import follow, formula, held_parameters
from chainrule.train.lion import Lion

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "lion": lambda p: Lion(p, lr=0.01),
}


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def made(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    batch = torch.randn(8, 4), torch.randn(8, 2)
    return model, make(model.parameters()), promote(cr.capture(model, squared, batch), torch.float64), batch


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizers_own_steps_agree_with_what_is_told(name):
    model, optimizer, graph, _ = made(OPTIMIZERS[name])
    updates = list(follow(graph, model, optimizer, "0.weight", (1, 2), 4))

    assert [1, 2, 3, 4] == [one.number for one in updates]
    assert updates[-1].loss < updates[0].loss
    assert [one.value for one in updates] == pytest.approx([one.real for one in updates], rel=1e-12)


def test_adams_moments_are_those_of_paper_and_pencil():
    model, optimizer, graph, _ = made(OPTIMIZERS["adamw"])
    first, second = follow(graph, model, optimizer, "0.weight", (1, 2), 2)
    g1, g2 = first.gradient, second.gradient
    m, v = 0.9 * 0.1 * g1 + 0.1 * g2, 0.999 * 0.001 * g1**2 + 0.001 * g2**2

    assert {"m": m, "m̂": m / (1 - 0.81), "v": v, "v̂": v / (1 - 0.999**2)} == pytest.approx(dict(second.memory))


def test_with_amsgrad_the_corrected_moment_is_the_largest_so_far():
    model, optimizer, graph, _ = made(lambda p: torch.optim.Adam(p, lr=0.2, betas=(0.9, 0.1), amsgrad=True))
    first, second = follow(graph, model, optimizer, "2.bias", (0,), 2)

    assert second.memory["v"] < first.memory["v"], "else nothing is tested"
    assert first.memory["v"] / (1 - 0.1**2) == pytest.approx(second.memory["v̂"])


def test_an_optimizer_that_has_made_steps_goes_on_from_its_moments():
    model, optimizer, _, batch = made(OPTIMIZERS["adam"])
    for _ in range(3):
        optimizer.zero_grad()
        squared(model, batch).backward()
        optimizer.step()
    graph = promote(cr.capture(model, squared, batch), torch.float64)
    (update,) = follow(graph, model, optimizer, "2.bias", (0,), 1)

    assert float(optimizer.state[model[2].bias]["exp_avg"][0]) != 0
    assert update.real == pytest.approx(update.value, rel=1e-12)


def test_model_and_optimizer_are_afterwards_as_they_were():
    model, optimizer, graph, _ = made(OPTIMIZERS["adamw"])
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    list(follow(graph, model, optimizer, "0.weight", (0, 0), 3))

    assert all(torch.equal(before[0][key], value) for key, value in model.state_dict().items())
    assert before[1] == optimizer.state_dict()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_unknown_optimizer_and_a_parameter_that_it_does_not_hold_are_refused():
    model, _, graph, _ = made(OPTIMIZERS["sgd"])
    with pytest.raises(SetupError, match="no reference formula is known of ASGD"):
        held_parameters(model, torch.optim.ASGD(model.parameters()))
    with pytest.raises(SetupError, match=r"the optimizer does not hold 0.weight: it is never updated"):
        list(follow(graph, model, torch.optim.SGD(model[2].parameters(), lr=0.1), "0.weight", (0, 0), 1))


def test_the_formula_is_that_of_the_rules_own_page():
    model, optimizer, _, _ = made(OPTIMIZERS["adam"])

    assert any(
        "m_t = β1 m_{t-1} + (1 - β1) d_t" in line
        for line in formula(held_parameters(model, optimizer)["0.weight"].rule)
    )


FILE = """
import torch
import chainrule as cr

def setup():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    batch = torch.ones(4, 2), torch.zeros(4, 1)
    loss = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
    return cr.Setup(model, loss, [batch], torch.optim.Adam(model.parameters(), lr=0.1))

def without():
    return cr.Setup(setup().model, setup().loss, setup().batches)
"""


def test_the_command_shows_each_update_beside_the_formula(tmp_path, capsys):
    (tmp_path / "model.py").write_text(FILE)

    assert 0 == cli.run(
        ["explain", str(tmp_path / "model.py"), "--parameter", "weight", "--element", "0,1", "--steps", "3"]
    )
    printed = capsys.readouterr().out
    assert re.search(r"^Adam on weight\[0, 1\], from [+-]\d", printed)
    assert "p_t = p_{t-1} - γ m̂_t / (√v̂_t + ε)" in printed
    assert ["1", "2", "3"] == re.findall(r"^ +(\d)  ", printed, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([":setup", "--element", "0,7"], "--element is '0,7'; the parameter has the shape (1, 2)"),
        ([":setup", "--element", "a"], "whole numbers with commas are expected, such as 0,3"),
        ([":setup", "--steps", "0"], "--steps is 0; it must be 1 or more"),
        ([":without"], "names no optimizer: give Setup(..., optimizer=...)"),
    ],
)
def test_a_mistake_is_told_with_what_is_expected(tmp_path, capsys, arguments, words):
    (tmp_path / "model.py").write_text(FILE)

    assert cli.MISUSE == cli.run(
        ["explain", f"{tmp_path / 'model.py'}{arguments[0]}", "--parameter", "weight", *arguments[1:]]
    )
    assert words in capsys.readouterr().err
