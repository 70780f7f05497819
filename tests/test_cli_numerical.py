"""`chainrule numerical`: which elements are meant, and what the textbook's table shows."""

import re

import pytest
import torch

from chainrule import cli
from chainrule.cli_numerical import chosen, span
from chainrule.errors import ConfigError

FILE = """
import torch
import chainrule as cr

def setup():
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    batch = torch.randn(6, 3).double()
    return cr.Setup(model, lambda model, x: (model(x) ** 2).mean(), [batch])
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    path = tmp_path / "small_network.py"
    path.write_text(FILE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "indices"),
    [(":", [0, 1, 2, 3]), ("0:2", [0, 1]), ("2:", [2, 3]), ("-1:", [3]), ("1", [1]), ("-1", [3]), ("::2", [0, 2])],
)
def test_a_range_is_written_as_in_python(text, indices):
    assert indices == list(span(text, "--rows", 4))


@pytest.mark.parametrize("text", ["4", "5:9", "a", "0:x", "", "1:2:3:4", "-5"])
def test_a_range_outside_the_parameter_is_refused(text):
    with pytest.raises(
        ConfigError, match=rf"--rows {re.escape(text)}: expected an index or a range such as 0:4 within 0:4"
    ):
        span(text, "--rows", 4)


def test_rows_and_columns_choose_of_the_first_two_dimensions():
    assert [(1, 0), (1, 2)] == chosen((2, 3), "1", "::2")
    assert [(1,)] == chosen((2,), "1", ":")
    assert [()] == chosen((), ":", ":")
    assert [(0, 1, 0), (0, 1, 1)] == chosen((2, 2, 2), "0", "1")


def test_columns_of_a_vector_are_refused():
    with pytest.raises(
        ConfigError, match=r"--columns 0:2: the parameter has shape \(4,\), so only --rows can be chosen"
    ):
        chosen((4,), ":", "0:2")


def test_the_textbooks_table_shows_both_losses_and_both_gradients(file, capsys):
    code = cli.run(["numerical", file, "--parameter", "0.weight", "--h", "1e-5", "--rows", "0:2", "--columns", "1"])
    lines = capsys.readouterr().out.splitlines()

    assert 0 == code
    assert "0.weight (4, 3), forward difference (L(W + hE) - L(W)) / h, h = 1e-05" == lines[0]
    assert ["element", "L_plus", "L_current", "gradient", "chain", "rule", "difference"] == lines[2].split()
    assert ["[0, 1]", "[1, 1]"] == [line[:6] for line in lines[3:5]]
    for line in lines[3:5]:
        plus, current, ours, theirs, difference = map(float, line[6:].split())
        assert ours == pytest.approx((plus - current) / 1e-5, abs=2e-10)  # 15 digits of the losses are printed
        assert ours == pytest.approx(theirs, abs=1e-4)
        assert difference == pytest.approx(ours - theirs, rel=0.1)
    assert lines[-2].startswith("2 elements, 3 evaluations of the loss, ")


def test_the_chain_rule_column_is_autograds_gradient(file, capsys):
    from chainrule.setup_file import load_setup

    setup = load_setup(file)
    setup.loss(setup.model, setup.batches[0]).backward()
    cli.run(["numerical", file, "--parameter", "2.weight", "--method", "order8"])
    column = [float(line[6:].split()[2]) for line in capsys.readouterr().out.splitlines() if line.startswith("[")]

    torch.testing.assert_close(setup.model[2].weight.grad.flatten().tolist(), column, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("method", "largest"), [("central", 1e-9), ("order8", 1e-11), ("complex", 1e-15)])
def test_the_better_methods_come_closer(method, largest, file, capsys):
    assert 0 == cli.run(["numerical", file, "--parameter", "0.bias", "--method", method])
    found = float(re.search(r"largest difference (\S+),", capsys.readouterr().out).group(1))

    assert largest > found


def test_the_sweep_shows_truncation_and_round_off(file, capsys):
    assert 0 == cli.run(["numerical", file, "--parameter", "0.weight", "--sweep"])
    printed = capsys.readouterr().out
    best = {m: float(e) for m, e in re.findall(r"(\w+) +comes closest at h = \S+: error (\S+)", printed)}

    assert "left: round-off" in printed
    assert best["forward"] > best["central"] > best["order8"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parameter", "0.wieght"], "did you mean '0.weight'?"),
        (["--parameter", "0.weight", "--h", "0"], "--h must be a positive step, got 0"),
        (["--parameter", "0.weight", "--rows", "9"], "--rows 9: expected an index or a range such as 0:4 within 0:4"),
        (["--parameter", "0.weight", "--method", "magic"], "magic"),
        ([], "--parameter"),
    ],
)
def test_misuse_exits_with_2_and_says_what_was_expected(arguments, words, file, capsys):
    assert 2 == cli.run(["numerical", file, *arguments])
    assert words in capsys.readouterr().err
