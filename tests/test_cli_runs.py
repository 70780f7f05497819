"""`chainrule runs` and `chainrule compare`, on folders as training leaves them and on real runs."""

from dataclasses import replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chainrule import cli
from chainrule.api import train
from chainrule.train.events import read_steps
from past_runs import made_run
from small_runs import tiny_config


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_runs_are_listed_with_status_steps_and_best_loss(folder, capsys):
    made_run(folder, "first")
    made_run(folder, "second", steps=12, ending="")

    assert 0 == cli.run(["runs"])
    title, first, second, *_ = capsys.readouterr().out.splitlines()
    assert ["run", "task", "status", "steps", "best", "validation", "started", "took"] == title.split()
    assert ["first", "text", "finished", "40", "of", "40", "0.1500", "at", "40"] == first.split()[:9]
    assert ["second", "text", "killed", "12", "of", "40", "0.6000", "at", "10"] == second.split()[:9]
    assert second.endswith("6 s")


def test_a_folder_without_runs_says_how_one_is_made(folder, capsys):
    assert 0 == cli.run(["runs"])
    assert "no runs in runs/; `chainrule train` makes one\n" == capsys.readouterr().out


def test_two_runs_are_set_side_by_side(folder, capsys):
    made_run(folder, "a", report={"validation_loss": 0.25})
    made_run(folder, "b", rate=1e-2, steps=30, ending="interrupted")

    assert 0 == cli.run(["compare", "a", "runs/b"])
    shown = capsys.readouterr().out
    assert shown.startswith("A  runs/a, finished\nB  runs/b, interrupted\n\nsetting ")
    assert "optimizer.learning_rate  0.001  0.01\n" in shown
    assert "● A   ○ B      →  step" in shown
    assert "30    0.1726      0.1726      0.2000        0.2000\n" in shown
    assert "steps                  40 of 40           30 of 40\n" in shown
    assert "final validation loss  0.2500             –\n" in shown
    assert "need not be comparable" not in shown


def test_runs_on_other_data_are_said_to_be_no_match(folder, capsys):
    made_run(folder, "a")
    made_run(folder, "b", text=("other.txt",))
    cli.run(["compare", "a", "b"])

    assert "Task, data or unit of the loss differ: the losses below need not be comparable." in capsys.readouterr().out


def test_a_run_without_updates_is_no_failure(folder, capsys):
    made_run(folder, "a")
    made_run(folder, "b", steps=0)

    assert 0 == cli.run(["compare", "a", "b"])
    shown = capsys.readouterr().out
    assert "all settings are the same" in shown
    assert "B has made no update yet: there are no losses to compare" in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("firts", "no run 'firts' in runs/; did you mean first?"),
        ("xyz", "no run 'xyz' in runs/; known are first"),
    ],
)
def test_an_unknown_run_is_refused(name, words, folder, capsys):
    made_run(folder, "first")

    assert 2 == cli.run(["compare", "first", name])
    assert words in capsys.readouterr().err


def test_real_runs_are_listed_compared_and_shown_by_tensorboard(folder, tmp_path, capsys):
    config = tiny_config(tmp_path)
    config = replace(config, runs_folder="runs", loop=replace(config.loop, tensorboard="on"))
    train(config)
    train(replace(config, name="wider", model=replace(config.model, hidden=12)))

    assert 0 == cli.run(["runs"])
    assert 0 == cli.run(["compare", "tiny", "wider"])
    shown = capsys.readouterr().out
    assert "tiny   text  finished  20 of 20" in shown
    assert "model.hidden  8  12\n" in shown
    assert "tokens a second" in shown

    losses = {step.step: step.loss for step in read_steps(folder / "tiny")}
    written = EventAccumulator("runs/tiny/tensorboard").Reload().Scalars("loss/training")
    assert {1, 20} <= {event.step for event in written}
    assert [losses[event.step] for event in written] == pytest.approx([event.value for event in written], rel=1e-6)
