"""What a run folder says of its run: status, figures, curves, and how two runs differ."""

import os
import subprocess
import sys

import pytest

from chainrule.errors import CheckpointError
from chainrule.train.atomic import write_text
from chainrule.train.comparison import at_common_steps, comparable, curve, differences, figures, mean_loss
from chainrule.train.config import DataConfig, ModelConfig
from chainrule.train.events import Events
from chainrule.train.past import past_runs, read_run
from chainrule.train.records import StepRecord
from chainrule.train.run_folder import sole_trainer
from past_runs import made_run


@pytest.mark.parametrize("ending", ["finished", "stopped early", "interrupted", "refused", "failed"])
def test_the_outcome_that_a_run_wrote_down_is_its_status(ending, tmp_path):
    assert ending == read_run(made_run(tmp_path, "a", ending=ending)).status


def test_a_run_without_an_end_is_running_while_a_process_holds_its_lock_and_killed_afterwards(tmp_path):
    folder = made_run(tmp_path, "a", ending="")
    with sole_trainer(folder):
        assert "running" == read_run(folder).status
    assert "killed" == read_run(folder).status


def test_a_resumed_run_is_not_finished_by_its_first_session(tmp_path):
    folder = made_run(tmp_path, "a", ending="interrupted", report={})
    events = Events(folder)
    events.note("resumed", "step 40")
    events.close()
    run = read_run(folder)

    assert "killed" == run.status
    assert {} == run.report, "the report is of the session before"


def test_a_run_that_wrote_down_no_start_stands_where_its_settings_were_written(tmp_path):
    for name, at in (("a", 3000), ("b", 1000), ("c", 2000)):
        (tmp_path / name).mkdir()
        write_text(tmp_path / name / "config.toml", "")
        os.utime(tmp_path / name / "config.toml", (at, at))
    events = Events(tmp_path / "b")
    events.note("failed", "before it began")
    events.close()
    (tmp_path / "c" / "config.toml").write_text("steps = [")
    os.utime(tmp_path / "c" / "config.toml", (2000, 2000))

    assert [("b", 1000), ("c", 2000), ("a", 3000)] == [(run.name, run.started) for run in past_runs(tmp_path)]


def test_rows_are_read_while_the_writer_holds_the_file(tmp_path):
    folder = made_run(tmp_path, "a", steps=3, ending="")
    events = Events(folder)
    events.step(StepRecord(4, 1.0, 1e-3, 1.0, 100, 0.5))
    run = read_run(folder)
    events.close()

    assert 4 == run.done
    assert 2.0 == run.seconds


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    folder = made_run(tmp_path, "a")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert 40 == len(read_run(folder).steps)

    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_writers_last_rows_are_read(tmp_path):
    folder = made_run(tmp_path, "a", steps=1, ending="")
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from chainrule.train.events import Events; from chainrule.train.records import StepRecord\n"
        "events = Events(Path(sys.argv[1])); events.step(StepRecord(2, 1.0, 1.0, 1.0, 1, 1.0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False)

    assert 2 == read_run(folder).done


def test_the_oldest_run_comes_first_and_other_folders_are_passed_over(tmp_path):
    made_run(tmp_path, "z")
    made_run(tmp_path, "a")
    (tmp_path / "notes").mkdir()

    assert ["z", "a"] == [run.name for run in past_runs(tmp_path)]


def test_a_damaged_run_hides_no_other(tmp_path):
    made_run(tmp_path, "good")
    (made_run(tmp_path, "bad") / "metrics.sqlite").write_bytes(b"no database" * 100)
    statuses = {run.name: run.status for run in past_runs(tmp_path)}

    assert "finished" == statuses["good"]
    assert statuses["bad"].startswith("damaged: ")
    assert "cannot be read: file is not a database" in statuses["bad"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no run folder: it has no config.toml; `chainrule runs` lists them"):
        read_run(tmp_path)


def test_how_many_updates_words_take_is_only_known_from_the_report(tmp_path):
    assert None is read_run(made_run(tmp_path, "a", task="words")).wanted
    assert 77 == read_run(made_run(tmp_path, "b", task="words", report={"steps_wanted": 77})).wanted
    assert 40 == read_run(made_run(tmp_path, "c")).wanted


# --- two runs -----------------------------------------------------------------------------------------------------------


def pair(tmp_path, **changes):
    return read_run(made_run(tmp_path, "a", report={})), read_run(made_run(tmp_path, "b", report={}, **changes))


def test_settings_that_differ_are_listed_without_the_names(tmp_path):
    assert [("optimizer.learning_rate", "0.001", "0.01")] == differences(*pair(tmp_path, rate=1e-2))


def test_a_setting_that_one_of_them_does_not_know_is_listed(tmp_path):
    first, second = pair(tmp_path)
    text = (second.folder / "config.toml").read_text(encoding="utf-8")
    (second.folder / "config.toml").write_text(text + "\n[later]\nsetting = 3\n", encoding="utf-8")

    assert [("later.setting", "not there", "3")] == differences(first, read_run(second.folder))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate": 1.0}, True),
        ({"model": ModelConfig(layers=2)}, True),
        ({"data": DataConfig(batch_size=3)}, True),
        ({"data": DataConfig(vocabulary=300)}, False),
        ({"text": ("other.txt",)}, False),
        ({"loss": "focal"}, False),
    ],
)
def test_losses_are_comparable_unless_the_data_or_their_unit_differ(changes, expected, tmp_path):
    assert expected == comparable(*pair(tmp_path, **changes))


def test_losses_of_another_unit_are_not_comparable(tmp_path):
    first = read_run(made_run(tmp_path, "a", report={}))

    assert not comparable(first, read_run(made_run(tmp_path, "b", report={"loss_unit": "squared metres"})))


def test_the_rows_end_where_the_shorter_run_does(tmp_path):
    rows = at_common_steps(*pair(tmp_path, steps=20), rows=4)

    assert [5, 10, 15, 20] == [row.step for row in rows]
    assert pytest.approx(sum(5 / step for step in range(6, 11)) / 5) == rows[1].training[0]
    assert [(None, None), (0.6, 0.6), (None, None), (0.3, 0.3)] == [row.validation for row in rows]


def test_a_run_without_updates_has_no_rows(tmp_path):
    assert [] == at_common_steps(*pair(tmp_path, steps=0))


def test_a_curve_is_the_mean_over_stretches(tmp_path):
    steps, losses = curve(pair(tmp_path)[0], 40, 4)

    assert [10, 20, 30, 40] == steps
    assert pytest.approx(sum(5 / step for step in range(11, 21)) / 10) == losses[1]


def test_a_stretch_without_a_step_has_no_mean(tmp_path):
    steps = pair(tmp_path)[0].steps

    assert mean_loss(steps, 40, 50) is None
    assert 5.0 == mean_loss(steps, 0, 1)


def test_the_figures_are_those_of_report_and_metrics(tmp_path):
    run = read_run(made_run(tmp_path, "a", report={"validation_loss": 0.1234567, "metrics": {"R2": 0.52, "note": "x"}}))
    found = figures(run)

    assert "0.1500 at step 40" == found["best validation loss"]
    assert "0.1235" == found["final validation loss"]
    assert "200" == found["tokens a second"]
    assert "0.52" == found["R2"]
    assert "note" not in found


def test_a_speed_is_of_what_the_report_says_that_the_loss_is_the_mean_over(tmp_path):
    run = read_run(made_run(tmp_path, "a", task="words", report={"term": "prediction"}))

    assert "predictions a second" in figures(run)
    assert "words a second" in figures(read_run(made_run(tmp_path, "b", task="words")))
