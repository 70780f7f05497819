"""A loss of the user's own in a run on a table: examined before the first update, refused if it must not be trained with."""

import pytest

from chainrule.api import train
from chainrule.errors import SetupError
from chainrule.train.past import read_run
from small_tables import table_config, write_csv

OWN = """
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


@pytest.fixture
def config_with(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "losses_of_a_user.py").write_text(OWN, encoding="utf-8")
    rows = [[i * 0.37 % 1, i * 0.11 % 1, "yes" if i * 0.37 % 1 > 0.5 else "no"] for i in range(200)]
    file = write_csv(tmp_path / "t.csv", ["x", "y", "target"], rows)

    def config_with(function):
        loss = f"{tmp_path / 'losses_of_a_user.py'}:{function}"
        return table_config(tmp_path, file, table={"loss": loss}, loop={"preflight": True, "tensorboard": "off"})

    return config_with


def test_a_sound_loss_is_examined_and_trained_with(config_with):
    results = train(config_with("smooth"))

    assert "finished" == results.outcome
    assert ["loss gradient", "loss edges", "loss terms", "0 forward"] == [
        stage["name"] for stage in results.preflight["stages"][:4]
    ]
    assert results.beats_baseline


def test_one_that_is_nan_at_an_edge_is_refused_before_the_first_update(config_with, tmp_path):
    results = train(config_with("naive"))

    assert ("refused by preflight", 0) == (results.outcome, results.steps)
    assert ["loss-unstable"] == [finding["check"] for finding in results.preflight["findings"]]
    assert "refused" == read_run(tmp_path / "runs" / "table").status


def test_one_that_returns_no_tensor_is_an_error_in_words_and_the_run_has_failed(config_with, tmp_path):
    with pytest.raises(SetupError, match=r"losses_of_a_user.py:number returned float for predictions \(32,\)"):
        train(config_with("number"))

    assert "failed" == read_run(tmp_path / "runs" / "table").status


def test_one_that_raises_is_an_error_in_words(config_with):
    with pytest.raises(
        SetupError, match=r"py:shapeless raised IndexError for predictions \(\d+,\) and targets \(\d+,\): "
    ):
        train(config_with("shapeless"))
