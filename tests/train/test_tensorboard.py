"""TensorBoard's event files: written where tensorboard is installed, with the figures of the SQLite file."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from chainrule.errors import ConfigError
from chainrule.train import tensorboard
from chainrule.train.records import Evaluation, StepRecord
from chainrule.train.tensorboard import Board, choose


def scalars(folder, name):
    """(step, value) of a tag as TensorBoard reads it; what a later session purged is gone."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def write(folder, steps, after=-1):
    board = Board(folder)
    board.forget_after(after)
    for step in steps:
        board.step(StepRecord(step, 2.0**-step, 0.5, 4.0, 100, 0.25))
        board.evaluation(Evaluation(step, 4.0**-step, 8))
    board.close()


def test_what_was_written_is_read(tmp_path):
    write(tmp_path, [1, 2, 3])

    assert [(1, 0.5), (2, 0.25), (3, 0.125)] == scalars(tmp_path, "loss/training")
    assert [(1, 0.25), (2, 0.0625), (3, 0.015625)] == scalars(tmp_path, "loss/validation")
    assert [400.0] * 3 == [value for _, value in scalars(tmp_path, "terms_per_second")]


def test_of_quick_steps_one_is_written_each_tenth_of_a_second_of_training_and_the_last(tmp_path):
    board = Board(tmp_path)
    for step in range(1, 12):
        board.step(StepRecord(step, 1.0, 0.5, 4.0, 100, 2.0**-5))
    board.close()

    assert [1, 5, 9, 11] == [step for step, _ in scalars(tmp_path, "loss/training")]


def test_a_figure_that_is_not_known_is_left_out(tmp_path):
    board = Board(tmp_path)
    board.step(StepRecord(1, 0.5, 0.5, None, 100, 0.25))
    board.close()

    assert [(1, 0.5)] == scalars(tmp_path, "loss/training")
    with pytest.raises(KeyError, match="gradient_norm"):
        scalars(tmp_path, "gradient_norm")


def test_a_resumed_run_hides_what_was_lost(tmp_path):
    write(tmp_path, [1, 2, 3])
    write(tmp_path, [2, 3], after=1)

    assert [1, 2, 3] == [step for step, _ in scalars(tmp_path, "loss/training")]


def test_without_a_record_no_file_is_made(tmp_path):
    write(tmp_path, [])

    assert [] == list(tmp_path.iterdir())


def test_the_choice_is_said_with_its_reason(monkeypatch):
    assert (True, "as asked") == choose("on")
    assert (True, "it is installed; --loop.tensorboard off leaves it out") == choose("auto")
    assert (False, "off, as asked") == choose("off")
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    assert (False, "off: not installed (pip install 'chainrule[tensorboard]')") == choose("auto")
    with pytest.raises(ConfigError, match=r"loop.tensorboard is 'on', but tensorboard is not installed: pip install "):
        choose("on")
