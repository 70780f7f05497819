"""`chainrule losses`: the table, the page of a loss, a recommendation for a file, an examination of a user's own loss."""

import sys

import pytest

from chainrule import cli
from chainrule.losses import CATALOGUE

OWN = """
import torch
import torch.nn.functional as F

def focal(prediction, target):
    terms = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    return ((1 - torch.exp(-terms)) ** 2 * terms).mean()

def naive(prediction, target):
    p = torch.sigmoid(prediction)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

def of_batches(prediction, target):
    if len(prediction.shape) == 0 or len(prediction) < 2:
        raise ValueError("two examples are needed")
    return (prediction - target).square().mean()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "my_losses.py").write_text(OWN, encoding="utf-8")
    rows = [f"{i % 7},{'yes' if i % 25 == 0 else 'no'},{0.37 * i % 11:.3f}" for i in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["day,bought,price", *rows]) + "\n", encoding="utf-8")
    return tmp_path


def test_the_table_has_every_loss_and_its_formula(capsys):
    assert 0 == cli.run(["losses"])

    shown = capsys.readouterr().out
    assert all(f"  {loss.name} " in shown and loss.formula in shown for loss in CATALOGUE)


def test_a_page_has_formula_gradient_and_plot(capsys):
    assert 0 == cli.run(["losses", "huber"])

    shown = capsys.readouterr().out
    assert "  gradient    clamp(e, −δ, δ)\n" in shown
    assert "● loss   ○ gradient      →  error = prediction − target" in shown


def test_settings_change_the_plot(capsys):
    assert 0 == cli.run(["losses", "huber(delta=2)"])

    assert "          -8                                                               8\n" in capsys.readouterr().out


def test_a_recommendation_gives_settings_reasons_and_figures(folder, capsys):
    assert 0 == cli.run(["losses", "--data", "t.csv", "--target", "bought"])

    shown = capsys.readouterr().out
    assert shown.startswith("for bought: log-loss with positive_weight = 24\n")
    assert "true is 4.0% of the rows: weight 24 for true lets both classes count alike." in " ".join(shown.split())
    assert 'RUN.toml  loss = "log-loss(positive_weight=24)"' in shown
    assert "false 384 (96.0%), true 16 (4.0%)" in shown
    assert "● loss" in shown


def test_the_kind_can_be_given(folder, capsys):
    cli.run(["losses", "--data", "t.csv", "--target", "day"])
    cli.run(["losses", "--data", "t.csv", "--target", "day", "--kind", "numbers"])

    shown = capsys.readouterr().out
    assert "for day: cross-entropy\n" in shown
    assert "for day: mse\n" in shown


def test_a_good_loss_of_the_users_own_passes_and_is_drawn(folder, capsys):
    assert 0 == cli.run(["losses", "my_losses.py:focal", "--data", "t.csv", "--target", "bought"])

    shown = capsys.readouterr().out
    assert "PASS" in shown
    assert "logit of a positive example" in shown


def test_a_bad_one_fails_with_the_place_and_the_command(folder, capsys):
    assert 1 == cli.run(["losses", "my_losses.py:naive", "--kind", "binary"])

    shown = capsys.readouterr().out
    assert "error[loss-unstable] my_losses.py:naive" in shown
    assert "--> my_losses.py:9" in shown
    assert "reproduce: chainrule losses my_losses.py:naive --kind binary" in shown


def test_the_users_file_is_run_once(folder, capsys):
    (folder / "spoken.py").write_text(
        "print('run')\ndef loss(p, t):\n    return (p - t).square().mean()\n", encoding="utf-8"
    )
    cli.run(["losses", "spoken.py", "--kind", "numbers"])

    assert 1 == capsys.readouterr().out.splitlines().count("run")


def test_one_that_takes_no_single_example_is_told_and_not_drawn(folder, capsys):
    assert 1 == cli.run(["losses", "my_losses.py:of_batches", "--kind", "numbers"])

    shown = capsys.readouterr().out
    assert "raises ValueError" in shown
    assert "no plot: for a single example it raises ValueError: two examples are needed" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hubert"], "no loss is called 'hubert'; did you mean huber?"),
        (["--data", "t.csv"], "--data FILE and --target COLUMN belong together: give both"),
        (["huber", "--data", "t.csv", "--target", "day"], "--data recommends a loss for a column: leave out huber"),
        (["--data", "t.csv", "--target", "pric"], "t.csv has no column 'pric'; did you mean price?"),
        (["--data", "t.csv", "--target", "xyz"], "t.csv has no column 'xyz'; it has day, bought, price"),
        (["my_losses.py:fokal"], "my_losses.py has no function 'fokal'; did you mean my_losses.py:focal?"),
    ],
)
def test_misuse_is_told_with_what_to_do(arguments, words, folder, capsys):
    assert 2 == cli.run(["losses", *arguments])
    assert words in capsys.readouterr().err
