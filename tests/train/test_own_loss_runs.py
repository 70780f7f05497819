"""A loss of the user's own in a run on a table or a text: examined before the first update, refused if it must not be used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chainrule.api import train
from chainrule.errors import CheckpointError, SetupError
from chainrule.models import next_token_loss
from chainrule.train.checkpoint import checkpoints
from chainrule.train.config import DataConfig, LoopConfig
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.language_model import load_language_model
from chainrule.train.past import read_run
from chainrule.train.run_folder import open_run
from chainrule.train.tasks.text_data import load
from small_runs import tiny_config
from small_tables import table_config, write_csv

OF_A_TABLE = """
import torch
import torch.nn.functional as F

def smooth(prediction, target):
    return F.softplus((1 - 2 * target) * prediction).mean()

def naive(prediction, target):
    p = torch.sigmoid(prediction)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

def shapeless(prediction, target):
    return prediction[0, 0] - target[0]

def number(prediction, target):
    return float(smooth(prediction, target))
"""
OF_TEXT = """
import torch.nn.functional as F

def focal(prediction, target):
    log_p = F.log_softmax(prediction, dim=-1).gather(1, target[:, None]).squeeze(1)
    return -(log_p.expm1().square() * log_p).mean()

def nats(prediction, target):
    return F.nll_loss(prediction.log_softmax(-1), target)

def naive(prediction, target):
    return -prediction.softmax(-1).gather(1, target[:, None]).log().mean()

def half(prediction, target):
    right = prediction.gather(1, target[:, None]).squeeze(1)
    return (prediction.logsumexp(-1) - right.detach()).mean()

def summed(prediction, target):
    return F.cross_entropy(prediction, target, reduction="sum")

def number(prediction, target):
    return float(nats(prediction, target))
"""
FREE = LoopConfig(
    evaluate_every=5, evaluate_windows=8, checkpoint_every=7, preflight=False, compile="off", tensorboard="off"
)


@pytest.fixture(autouse=True)
def _path_kept(monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])


@pytest.fixture
def table_with(tmp_path):
    (tmp_path / "losses_of_a_user.py").write_text(OF_A_TABLE, encoding="utf-8")
    rows = [[i * 0.37 % 1, i * 0.11 % 1, "yes" if i * 0.37 % 1 > 0.5 else "no"] for i in range(200)]
    file = write_csv(tmp_path / "t.csv", ["x", "y", "target"], rows)

    def table_with(function):
        loss = f"{tmp_path / 'losses_of_a_user.py'}:{function}"
        return table_config(tmp_path, file, loss=loss, loop={"preflight": True, "tensorboard": "off"})

    return table_with


@pytest.fixture
def text_with(tmp_path):
    file = tmp_path / "losses_of_text.py"
    file.write_text(OF_TEXT, encoding="utf-8")

    def text_with(loss, *, preflight=False, **changes):
        loss = loss if loss == "auto" or "(" in loss else f"{file}:{loss}"
        return replace(tiny_config(tmp_path), loss=loss, loop=replace(FREE, preflight=preflight), **changes)

    return text_with


# --- a table ----------------------------------------------------------------------------------------------------------


def test_a_sound_loss_is_examined_and_trained_with(table_with):
    results = train(table_with("smooth"))

    assert "finished" == results.outcome
    assert ["loss gradient", "loss edges", "loss terms", "0 forward"] == [
        stage["name"] for stage in results.preflight["stages"][:4]
    ]
    assert results.beats_baseline
    assert "losses_of_a_user.py:smooth" == results.loss_unit == results.trained_unit


def test_one_that_is_nan_at_an_edge_is_refused_before_the_first_update(table_with, tmp_path):
    results = train(table_with("naive"))

    assert ("refused by preflight", 0) == (results.outcome, results.steps)
    assert ["loss-unstable"] == [finding["check"] for finding in results.preflight["findings"]]
    assert "refused" == read_run(tmp_path / "runs" / "table").status


def test_one_that_returns_no_tensor_is_an_error_in_words_and_leaves_no_run(table_with, tmp_path):
    words = r"losses_of_a_user.py:number returned float for predictions \(\d+,\) and targets .*: leave out .item\(\)"
    with pytest.raises(SetupError, match=words):
        train(table_with("number"))

    assert not (tmp_path / "runs" / "table").exists()


def test_one_that_raises_is_an_error_in_words(table_with):
    with pytest.raises(
        SetupError,
        match=r"py:shapeless raised IndexError for predictions \(\d+,\) and targets \(\d+,\): .*\n"
        r"  File .*/losses_of_a_user.py\", line \d+, in shapeless\n",
    ):
        train(table_with("shapeless"))


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_trained_by_it_and_measured_in_nats(text_with):
    config = text_with("focal", preflight=True)
    results = train(config)
    windows = load(Path(results.folder), config).validation
    everything = windows.batch(np.arange(len(windows)), torch.device("cpu"))
    with torch.no_grad():
        nats = next_token_loss(load_language_model(Path(results.folder)).model, everything)

    assert "finished" == results.outcome
    assert "loss gradient" == results.preflight["stages"][0]["name"]
    assert ("nats per token", "losses_of_text.py:focal per token") == (results.loss_unit, results.trained_unit)
    assert float(nats) == pytest.approx(results.validation_loss, rel=1e-6)  # float32
    assert f"{results.training_loss:.4f} losses_of_text.py:focal per token" in str(results)


def test_the_cross_entropy_written_by_hand_trains_as_the_standard_loss_does(text_with, tmp_path):
    standard = train(replace(text_with("auto", precision="float64"), name="standard"))
    own = train(replace(text_with("nats", precision="float64"), name="own"))

    assert [r.loss for r in read_steps(Path(standard.folder))] == pytest.approx(
        [r.loss for r in read_steps(Path(own.folder))], rel=1e-12
    )
    assert standard.validation_loss == pytest.approx(own.validation_loss, rel=1e-12)


@pytest.mark.parametrize(
    ("function", "check"), [("naive", "loss-unstable"), ("half", "loss-wrong-gradient")], ids=["log(0)", "detached"]
)
def test_one_that_must_not_be_trained_with_is_refused(text_with, function, check):
    results = train(text_with(function, preflight=True))

    assert ("refused by preflight", 0) == (results.outcome, results.steps)
    assert [check] == [finding["check"] for finding in results.preflight["findings"]]


def test_a_sum_is_warned_of_and_trained_with(text_with):
    results = train(text_with("summed", preflight=True, steps=1))

    assert "finished" == results.outcome
    assert "loss-not-a-mean" in [finding["check"] for finding in results.preflight["findings"]]


def test_one_that_returns_no_tensor_is_told_without_a_preflight_too(text_with):
    with pytest.raises(SetupError, match=r"number returned float for predictions \(2, 280\) and targets \(2,\)"):
        train(text_with("number"))


def test_accumulated_parts_of_unequal_size_make_the_update_of_the_whole_batch(text_with):
    config = text_with("focal", steps=3, precision="float64")
    config = replace(config, model=replace(config.model, dropout=0.0))
    whole, parts = (
        train(
            replace(
                config,
                name=f"by {at_once}",
                data=DataConfig(vocabulary=280, batch_size=8, micro_batch_size=at_once),
            )
        )
        for at_once in (8, 3)
    )

    assert [(r.terms, pytest.approx(r.loss, rel=1e-12)) for r in read_steps(Path(whole.folder))] == [
        (r.terms, r.loss) for r in read_steps(Path(parts.folder))
    ]


@pytest.mark.parametrize("loss", ["focal", "focal(gamma=2)", "cross-entropy(smoothing=0.1)"])
def test_the_chain_rule_trains_with_it_as_autograd_does(text_with, loss):
    config = text_with(loss, steps=4, precision="float64")
    ours, theirs = (train(replace(config, gradient=name, name=name)) for name in ("chain_rule", "autograd"))

    assert [r.loss for r in read_steps(Path(theirs.folder))] == pytest.approx(
        [r.loss for r in read_steps(Path(ours.folder))], rel=1e-12
    )


def test_finite_differences_train_with_it_too(text_with):
    config = text_with("focal", steps=1)
    tiny = replace(
        config,
        model=replace(config.model, layers=1, heads=1, hidden=2, context=2, dropout=0.0),
        data=DataConfig(vocabulary=257, tokenizer="bytes", batch_size=1, micro_batch_size=1),
    )
    numerical, exact = (
        train(replace(tiny, gradient=name, precision="float64", name=name)) for name in ("numerical", "autograd")
    )
    (ours,), (theirs,) = (read_steps(Path(run.folder)) for run in (numerical, exact))

    assert theirs.loss == pytest.approx(ours.loss, rel=1e-12)
    assert theirs.gradient_norm == pytest.approx(ours.gradient_norm, rel=1e-8)  # of the differences


# --- going on ---------------------------------------------------------------------------------------------------------


def records_of(folder):
    """What a run wrote down of its updates and measurements, without the times."""
    return [(r.step, r.loss, r.gradient_norm) for r in read_steps(folder)], read_evaluations(folder)


def test_a_resumed_run_goes_on_with_it_bit_for_bit_from_anywhere(text_with, tmp_path, monkeypatch):
    folder = Path(train(text_with("focal")).folder)
    before = records_of(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    results = train(open_run(checkpoints(folder)[-2]))

    assert "losses_of_text.py:focal per token" == results.trained_unit
    assert before == records_of(folder)


def test_a_run_whose_loss_was_edited_is_not_resumed(text_with, tmp_path):
    folder = Path(train(text_with("focal")).folder)
    (tmp_path / "losses_of_text.py").write_text(OF_TEXT.replace("square()", "abs()"), encoding="utf-8")

    with pytest.raises(
        CheckpointError, match=r"the loss file of .*tiny was changed after its checkpoint was made \(sha256"
    ):
        train(open_run(checkpoints(folder)[-2]))
