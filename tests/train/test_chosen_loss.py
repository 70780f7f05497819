"""The loss that a run is given: by its goal, by name, or from a file of the user; what does not suit is refused in words."""

import pytest
import torch
from torch import nn

from chainrule.errors import ConfigError
from chainrule.losses import CATALOGUE, loss_named
from chainrule.losses.classification import cross_entropy, focal
from chainrule.train.chosen_loss import STANDARD, choose_loss, of_batch, settled_loss, suits
from chainrule.train.config import TableConfig, TrainConfig
from chainrule.train.run_folder import new_run
from chainrule.train.settings import load_config
from small_tables import table_config

HALF = "def half(prediction, target):\n    return ((prediction - target) ** 2).mean() / 2\n"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my_losses.py").write_text(HALF)
    return tmp_path / "my_losses.py"


@pytest.mark.parametrize("goal", STANDARD)
def test_the_standard_loss_of_a_goal_suits_it(goal):
    assert suits(loss_named(STANDARD[goal].name), goal)
    assert STANDARD[goal] is choose_loss("auto", goal)


def test_a_loss_of_the_catalogue_comes_with_its_settings():
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])

    assert focal(logits, targets, gamma=1.0) == choose_loss("focal(gamma=1)", "text").function(logits, targets)


@pytest.mark.parametrize(
    ("name", "goal", "words"),
    [
        ("mse", "text", "'mse', which does not suit text: its targets are numbers; these do: cross-entropy, focal; or your own"),
        ("focal", "regression", "which does not suit regression: its targets are classes; these do: mse, mae, huber"),
        ("triplet", "text", "which does not suit text: it does not compare predictions with targets; these do: cross-entropy"),
        ("huber(delta=1)x", "regression", r"'huber\(delta=1\)x' names no loss"),
        ("focl", "text", r"no loss is called 'focl'; did you mean focal\?"),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_refused_with_the_reason_and_with_what_does(name, goal, words):
    with pytest.raises(ConfigError, match=words):
        choose_loss(name, goal)


@pytest.mark.parametrize("goal", ["multi-class", "text"])
def test_a_loss_of_log_probabilities_is_refused_because_models_give_logits(goal):
    """−logit of the target has no lower bound: training would run away."""
    with pytest.raises(ConfigError, match="it takes log probabilities, and the model gives logits"):
        choose_loss("negative-log-likelihood", goal)


def test_every_loss_that_suits_classes_takes_logits_and_class_numbers():
    logits, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])

    assert ["cross-entropy", "focal"] == [loss.name for loss in CATALOGUE if suits(loss, "text")]
    assert all(loss.function(logits, targets) > 0 for loss in CATALOGUE if suits(loss, "text"))


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("def half(p, t): ...", "hlaf", r"my_losses\.py has no function 'hlaf'; did you mean my_losses\.py:half\?"),
        ("1 / 0\n\ndef half(p, t): ...", "half", r"my_losses\.py raised ZeroDivisionError"),
        ("half = 3", "half", r"my_losses\.py:half is int, expected a function"),
    ],
)
def test_a_file_without_the_loss_is_refused_in_words(tmp_path, content, name, words):
    (tmp_path / "my_losses.py").write_text(content)
    with pytest.raises(ConfigError, match=words):
        choose_loss(f"{tmp_path / 'my_losses.py'}:{name}", "text")


def test_the_user_s_own_is_called_by_its_file_s_name_and_examined(file):
    chosen = choose_loss(f"{file}:half", "regression")

    assert "my_losses.py:half" == chosen.name == chosen.examined(lambda model, batch: batch).name
    assert choose_loss("mse", "regression").examined(lambda model, batch: batch) is None


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(loss="mse"),
        TrainConfig(loss="nowhere.py:focal"),
        TrainConfig(task="table", table=TableConfig("t.csv", "y"), loss="triplet"),
    ],
    ids=["of numbers for text", "missing", "of no table"],
)
def test_a_new_run_refuses_it_before_anything_is_read(config):
    with pytest.raises(ConfigError, match=r"^loss is "):
        new_run(config)


def test_vectors_of_words_have_a_loss_of_their_own():
    with pytest.raises(
        ConfigError, match=r"loss is 'focal' and task is 'words', whose loss is words.objective \(negative\)"
    ):
        TrainConfig(task="words", loss="focal")


# --- where a file lies ------------------------------------------------------------------------------------------------


def test_a_path_in_a_toml_file_is_relative_to_that_file(tmp_path, file, monkeypatch):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "run.toml").write_text('loss = "../my_losses.py:half"\n')
    monkeypatch.chdir(tmp_path / "settings")

    assert f"{file.resolve()}:half" == load_config(tmp_path / "settings" / "run.toml").loss


def test_a_path_of_a_flag_is_relative_to_the_working_directory_and_kept_absolute(tmp_path, file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = table_config(tmp_path, tmp_path / "t.csv", loss="my_losses.py:half")

    assert f"{file.resolve()}:half" == new_run(config).config.loss


def test_a_name_of_the_catalogue_stays_as_it_is():
    assert "focal(gamma=1)" == settled_loss(TrainConfig(loss="focal(gamma=1)"))


def test_the_place_that_the_option_once_had_is_answered_with_the_new_one(tmp_path):
    (tmp_path / "run.toml").write_text('[table]\nloss = "mse"\n')
    with pytest.raises(ConfigError, match=r"unknown key 'table.loss'; did you mean 'loss'\?"):
        load_config(tmp_path / "run.toml")


# --- in short precision -----------------------------------------------------------------------------------------------


def test_a_loss_is_computed_in_float32_though_the_products_are_shorter():
    model, batch = nn.Linear(4, 3), {"inputs": torch.randn(6, 4), "targets": torch.tensor([0, 1, 2, 2, 1, 0])}
    seen = []

    def loss(prediction, target):
        seen.append(prediction.dtype)
        return cross_entropy(prediction, target)

    with torch.autocast("cpu", torch.bfloat16):
        value = of_batch(loss, lambda model, batch: (model(batch["inputs"]), batch["targets"]))(model, batch)

    assert [torch.float32] == seen
    assert torch.float32 == value.dtype
