"""The command `predict`: answers on stdout or in a file, what else there is to say on stderr."""

import pytest

from chainrule import cli
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from small_tables import table_config, write_shipped


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wine")
    return run_training(new_run(table_config(folder, write_shipped("wine", folder)))).folder


@pytest.fixture
def wine(tmp_path):
    return write_shipped("wine", tmp_path)


def test_answers_go_to_stdout_and_the_rest_to_stderr(run, wine, capsys):
    assert 0 == cli.run(["predict", run, str(wine)])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()

    assert "prediction,probability of class_0,probability of class_1,probability of class_2" == lines[0]
    assert 1 + 178 == len(lines)
    assert lines[1].startswith("class_0,0.9")
    assert "178 rows by " in printed.err
    assert "scores on 178 rows with 'target': accuracy " in printed.err


def test_answers_go_to_a_file_if_one_is_named(run, wine, tmp_path, capsys):
    assert 0 == cli.run(["predict", run, str(wine), "--output", str(tmp_path / "out.csv")])

    assert "" == capsys.readouterr().out
    assert 1 + 178 == len((tmp_path / "out.csv").read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{run}", "none.csv"], "none.csv does not exist"),
        (["nowhere", "{wine}"], "nowhere is no run folder"),
        (["{run}", "{wine}", "--output", "nowhere/out.csv"], "nowhere is no folder"),
        (["{run}", "{wine}", "--output", "{wine}"], "wine.csv exists: take another --output, or remove it first"),
        (["{run}/checkpoints/step-000001", "{wine}"], "step-000001"),
    ],
)
def test_misuse_is_told_in_words_with_exit_code_2(run, wine, capsys, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(run=run, wine=wine) for argument in arguments]

    assert 2 == cli.run(["predict", *given])
    assert words in capsys.readouterr().err


def test_a_checkpoint_can_be_named(run, wine, capsys):
    assert 0 == cli.run(["predict", f"{run}/checkpoints/step-000040", str(wine)])
    assert "step-000040" in capsys.readouterr().err
