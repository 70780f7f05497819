"""The task of a table: what is read, which loss is taken, what is kept in the run folder, and what is refused."""

import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from chainrule.errors import CheckpointError, ConfigError, DataError, SetupError
from chainrule.losses.regression import huber
from chainrule.models.mlp import MLP
from chainrule.train.config import MLPConfig, TableConfig, TrainConfig
from chainrule.train.records import Silent
from chainrule.train.settings import config_from
from chainrule.train.tasks.table import build_model, make
from chainrule.train.tasks.table_data import Rows, load, prepare, save
from chainrule.train.tasks.table_loss import loss_of
from small_tables import table_config, write_csv, write_mixed


class Heard(Silent):
    def __init__(self):
        self.said = []

    def say(self, label, text):
        self.said.append((label, text))


@pytest.fixture
def mixed(tmp_path):
    return write_mixed(tmp_path / "mixed.csv")


def prepared(tmp_path, file, **changes):
    config = table_config(tmp_path, file, **changes)
    return config, prepare(config, Silent())


def batch_of(task, rows=8):
    return task.training.batch(np.arange(rows), torch.device("cpu"))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_every_choice_about_the_data_is_said_with_its_reason(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, table={"drop": ("class",)})
    listener = Heard()
    make(config, data, listener)
    text = "\n".join(f"{label}: {line}" for label, line in listener.said)

    for words in (
        "mixed.csv: 200 rows",
        "left out: 'id': counts the rows: an identifier",
        "left out: 'class': as asked (table.drop)",
        "'day': ISO 8601 dates, taken as days since 1970-01-01",
        "inputs: 9 from 4 columns; numbers: 'size' (2); true or false: 'paid'; dates: 'day'; words: 'colour' (5)",
        "target: 'target', regression (200 different numbers); loss mse",
        "rows: 140 training, 30 validation, 30 test; by a hash of each row's content",
        "to beat: the training mean, always: mse ",
    ):
        assert words in text


def test_the_test_rows_are_never_in_the_training_or_validation_rows(tmp_path, mixed):
    _, data = prepared(tmp_path, mixed)
    together = np.concatenate([side.y_N for side in data.sides.values()])

    assert 200 == len(together) == len(set(together.tolist()))


def test_a_dropped_column_leaves_every_row_on_its_side(tmp_path, mixed):
    _, data = prepared(tmp_path, mixed)
    _, fewer = prepared(tmp_path, mixed, table={"drop": ("class", "size"), "keep": ("id",)})

    for name, side in data.sides.items():
        np.testing.assert_array_equal(side.y_N, fewer.sides[name].y_N)


CELLS = st.one_of(
    st.sampled_from(
        ["", "NA", "inf", "-inf", "1e400", "nan", "yes", "no", "red", "blue", "2024-02-29", "0", "1", "-0"]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=4),
)


@settings(max_examples=60)
@given(
    columns=st.lists(st.lists(CELLS, min_size=24, max_size=24), min_size=2, max_size=4),
    by=st.sampled_from(["content", "index", "last"]),
)
def test_any_table_gives_finite_inputs_and_targets_or_a_data_error(tmp_path_factory, columns, by):
    folder = tmp_path_factory.mktemp("any")
    names = [*(f"c{place}" for place in range(len(columns) - 1)), "target"]
    config = table_config(folder, write_csv(folder / "t.csv", names, zip(*columns, strict=True)), table={"split": by})
    try:
        data = prepare(config, Silent())
    except DataError:
        return

    assert sum(map(len, data.sides.values())) + data.facts.rows_without_target == data.facts.rows
    for side in data.sides.values():
        rows = Rows(side, data.preprocessing.target, torch.float32)
        batch = rows.batch(np.arange(len(side)), torch.device("cpu"))
        assert all(tensor.isfinite().all() for tensor in batch.values())


def test_inputs_are_standardised_by_the_training_rows_alone(tmp_path, mixed):
    _, data = prepared(tmp_path, mixed, table={"drop": ("class",)})
    size = data.sides["training"].x_NF[:, 0]

    np.testing.assert_allclose([0, 1], [size.mean(), size.std()], atol=1e-6)
    assert abs(data.sides["test"].x_NF[:, 0].mean()) > 1e-3


def test_rows_without_a_target_are_left_out_and_counted(tmp_path):
    rows = [[i * 0.5, i % 7, "" if i % 10 == 0 else i % 3] for i in range(100)]
    _, data = prepared(tmp_path, write_csv(tmp_path / "t.csv", ["a", "b", "target"], rows))

    assert 10 == data.facts.rows_without_target
    assert 90 == sum(map(len, data.sides.values()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"target": "targte"},
            r"table.target is 'targte', and .*mixed.csv has no such column; did you mean 'target'\?",
        ),
        ({"drop": ("colr",)}, r"table.drop is 'colr', .* did you mean 'colour'\?"),
        ({"categories": ("zzz",)}, "table.categories is 'zzz', .* its columns are 'size', 'colour'"),
        ({"goal": "binary"}, "goal is 'binary' and target 'target' has 200 different values"),
        ({"file": "nowhere.csv"}, "nowhere.csv does not exist"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_a_run_folder_is_made(tmp_path, mixed, changes, words):
    with pytest.raises(DataError, match=words):
        prepared(tmp_path, mixed, table=changes)


def test_negative_numbers_are_no_counts(tmp_path, mixed):
    with pytest.raises(DataError, match="target 'target' has negative values"):
        prepared(tmp_path, mixed, loss="poisson")


def test_a_target_with_one_class_is_refused(tmp_path):
    file = write_csv(tmp_path / "t.csv", ["a", "target"], [[i * 0.7, "spam"] for i in range(30)])
    with pytest.raises(DataError, match="target 'target' has one value only, 'spam': there is nothing to learn"):
        prepared(tmp_path, file)


def test_a_target_that_is_all_missing_is_refused_with_the_reason(tmp_path):
    file = write_csv(tmp_path / "t.csv", ["a", "target"], [[i * 0.7, ""] for i in range(30)])
    with pytest.raises(DataError, match=r"target 'target' of .*t\.csv cannot be learned: every cell is missing"):
        prepared(tmp_path, file)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_config", "words"),
    [
        (lambda: TrainConfig(task="table"), "task is 'table': a file and the column that is to be predicted are needed"),
        (
            lambda: TrainConfig(table=TableConfig("f.csv")),
            r"a table is given \('f.csv'\) and task is 'text', .*; set --task table",
        ),
        (lambda: TrainConfig(task="table", text=("a.txt",)), "text is 'a.txt' and task is 'table', which reads table.file"),
        (lambda: TableConfig(validation_fraction=0), "table.validation_fraction is 0; a share between 0 and 1 is needed"),
        (lambda: TableConfig(test_fraction=0.9), "together are 1.05: none is left to train on"),
        (lambda: TableConfig(delimiter=";;"), "table.delimiter is ';;'; one character is needed"),
        (lambda: TableConfig(batch_size=0), "table.batch_size is 0; it must be 1 or more"),
        (lambda: MLPConfig(hidden=(3, 0)), r"mlp.hidden is \[3, 0\]; each layer needs 1 unit or more"),
        (lambda: MLPConfig(dropout=1), "mlp.dropout is 1; a probability from 0 up to below 1 is needed"),
        (
            lambda: TrainConfig(
                task="table", method="stochastic", table=TableConfig("f", "t"), mlp=MLPConfig(norm="batch")
            ),
            "mlp.norm is 'batch' and an update has one row",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(make_config, words):
    with pytest.raises(ConfigError, match=words):
        make_config()


# --- loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "name"), [("target", "mse"), ("class", "log-loss"), ("colour", "cross-entropy")])
def test_the_loss_follows_from_the_goal(tmp_path, mixed, target, name):
    config, data = prepared(tmp_path, mixed, table={"target": target})
    task = make(config, data, Silent())

    assert name in task.loss_unit
    assert name == loss_of(config, data.preprocessing.target, data.sides["training"].y_N).name
    assert () == task.loss(task.model, batch_of(task)).shape


def test_a_loss_of_the_catalogue_is_taken_by_its_name(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, loss="huber")
    task = make(config, data, Silent())
    batch = batch_of(task)

    assert huber(task.model(batch["inputs"])[:, 0], batch["targets"]) == task.loss(task.model, batch)


def test_a_setting_of_a_loss_stands_behind_its_name(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, loss="huber(delta=0.3)")
    task = make(config, data, Silent())
    batch = batch_of(task)

    assert huber(task.model(batch["inputs"])[:, 0], batch["targets"], delta=0.3) == task.loss(task.model, batch)


def test_a_loss_that_does_not_suit_the_goal_is_refused_with_those_that_do(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, loss="hinge")
    with pytest.raises(
        ConfigError,
        match="loss is 'hinge', which does not suit regression: its targets are binary; these do: mse, mae, huber",
    ):
        make(config, data, Silent())


def test_a_loss_of_the_user_s_file_is_called_with_prediction_and_target(tmp_path, mixed):
    (tmp_path / "my_losses.py").write_text(
        "def half(prediction, target):\n    return ((prediction - target) ** 2).mean() / 2\n"
    )
    config, data = prepared(tmp_path, mixed, loss=f"{tmp_path / 'my_losses.py'}:half")
    task = make(config, data, Silent())
    batch = batch_of(task)
    prediction = task.model(batch["inputs"])[:, 0]

    torch.testing.assert_close(F.mse_loss(prediction, batch["targets"]) / 2, task.loss(task.model, batch))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "(p - t) ** 2",
            r"half returned a tensor of shape \(30,\) for predictions \(30,\) and targets \(30,\), expected one number",
        ),
        ("p.nothing", "half raised AttributeError for predictions"),
    ],
)
def test_a_loss_of_the_user_s_that_gives_no_number_is_refused(tmp_path, mixed, body, words):
    (tmp_path / "my_losses.py").write_text(f"def half(p, t):\n    return {body}\n")
    config, data = prepared(tmp_path, mixed, loss=f"{tmp_path / 'my_losses.py'}:half")
    with pytest.raises(SetupError, match=words):
        make(config, data, Silent())


def test_balanced_classes_count_the_same_whatever_their_number_of_rows(tmp_path):
    rows = [[i * 0.37 % 1, i * 0.11 % 1, "abbbbbbccc"[i % 10]] for i in range(300)]
    config, data = prepared(
        tmp_path, write_csv(tmp_path / "t.csv", ["x", "y", "target"], rows), table={"class_weights": "balanced"}
    )
    task = make(config, data, Silent())
    everything = task.training.batch(np.arange(len(task.training)), torch.device("cpu"))
    logits = task.model(everything["inputs"])
    each = F.cross_entropy(logits, everything["targets"], reduction="none")
    by_class = torch.stack([each[everything["targets"] == place].mean() for place in range(3)])

    torch.testing.assert_close(by_class.mean(), task.loss(task.model, everything))


def test_two_balanced_classes_count_the_same(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, table={"target": "paid", "class_weights": "balanced"})
    task = make(config, data, Silent())
    everything = task.training.batch(np.arange(len(task.training)), torch.device("cpu"))
    each = F.binary_cross_entropy_with_logits(
        task.model(everything["inputs"])[:, 0], everything["targets"], reduction="none"
    )
    halves = [each[everything["targets"] == truth].mean() for truth in (0, 1)]

    torch.testing.assert_close(sum(halves) / 2, task.loss(task.model, everything))


def test_the_classes_keep_the_words_of_the_file(tmp_path, mixed):
    _, data = prepared(tmp_path, mixed, table={"target": "paid"})

    assert ("no", "yes") == data.preprocessing.target.classes


def test_parts_of_a_batch_with_balanced_classes_add_up_to_the_whole(tmp_path):
    rows = [[i * 0.37 % 1, i * 0.11 % 1, "abbbbbbccc"[i % 10]] for i in range(300)]
    config, data = prepared(
        tmp_path, write_csv(tmp_path / "t.csv", ["x", "y", "target"], rows), table={"class_weights": "balanced"}
    )
    task = make(config, data, Silent())
    whole, parts = (
        batch_of(task, 10),
        [task.training.batch(part, torch.device("cpu")) for part in np.split(np.arange(10), [3])],
    )
    summed = sum(task.loss(task.model, part) * task.count(part) for part in parts) / 10

    torch.testing.assert_close(task.loss(task.model, whole), summed)


def test_balanced_weights_of_a_loss_that_has_none_are_refused(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, table={"class_weights": "balanced"})
    with pytest.raises(
        ConfigError, match=r"table.class_weights is 'balanced', which log-loss and cross-entropy know; the loss is mse"
    ):
        make(config, data, Silent())


def test_the_baseline_of_two_classes_is_the_entropy_of_their_shares(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, table={"target": "class"})
    share = (data.sides["training"].y_N.sum() + 1) / (len(data.sides["training"]) + 2)
    y = data.sides["validation"].y_N
    expected = -np.log(np.where(y == 1, share, 1 - share)).mean()

    assert expected == pytest.approx(make(config, data, Silent()).baseline.loss)


# --- model ------------------------------------------------------------------------------------------------------------


def test_the_model_is_drawn_by_the_run_s_seed_alone(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed)
    torch.manual_seed(1)
    first = build_model(config, data.preprocessing).state_dict()
    torch.manual_seed(2)
    again = build_model(config, data.preprocessing).state_dict()
    other = build_model(table_config(tmp_path, mixed, seed=1), data.preprocessing).state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


@pytest.mark.parametrize(("name", "variance"), [("he", 2 / 400), ("xavier", 2 / (400 + 300))])
def test_weights_have_the_variance_of_their_formula(tmp_path, mixed, name, variance):
    config, data = prepared(tmp_path, mixed, mlp={"hidden": (400, 300), "initialisation": name})
    weight = build_model(config, data.preprocessing).layers[1].weight.detach()

    assert variance == pytest.approx(float(weight.var()), rel=0.02)


def test_orthogonal_weights_keep_lengths(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, mlp={"hidden": (40, 40), "initialisation": "orthogonal"})
    weight = build_model(config, data.preprocessing).layers[1].weight.detach()

    torch.testing.assert_close(torch.eye(40), weight @ weight.T, atol=1e-5, rtol=0)


def test_training_begins_near_the_baseline(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, table={"target": "colour"})
    task = make(config, data, Silent())
    everything = task.validation.batch(np.arange(len(task.validation)), torch.device("cpu"))

    assert task.loss(task.model, everything).item() == pytest.approx(
        np.log(len(data.preprocessing.target.classes)), abs=0.1
    )


def test_no_hidden_layer_is_a_linear_model(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed, mlp={"hidden": ()})
    model = build_model(config, data.preprocessing)

    assert isinstance(model, MLP)
    assert 1 == len(model.layers)


# --- the run folder ---------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_equal(tmp_path, mixed):
    config, data = prepared(tmp_path, mixed)
    assert load(tmp_path, config) is None
    save(tmp_path, data)
    again = load(tmp_path, config)

    assert data.preprocessing == again.preprocessing
    assert asdict(data.facts) == asdict(again.facts)
    for name, side in data.sides.items():
        np.testing.assert_array_equal(side.x_NF, again.sides[name].x_NF)
        np.testing.assert_array_equal(side.y_N, again.sides[name].y_N)


@pytest.mark.parametrize("file", ["rows.safetensors", "facts.json", "preprocessing.json"])
def test_damaged_data_of_a_run_is_told(tmp_path, mixed, file):
    config, data = prepared(tmp_path, mixed)
    save(tmp_path, data)
    (tmp_path / "data" / file).write_bytes(b"{")
    with pytest.raises(CheckpointError, match=r"is damaged: .*start a new run|cannot be read: "):
        load(tmp_path, config)


def test_batches_have_the_dtype_of_the_weights(tmp_path, mixed):
    _, data = prepared(tmp_path, mixed)
    rows = Rows(data.sides["training"], data.preprocessing.target, torch.float64)
    batch = rows.batch(np.array([0, 1]), torch.device("cpu"))

    assert [torch.float64, torch.float64] == [batch["inputs"].dtype, batch["targets"].dtype]


def test_the_settings_on_the_page_of_tables_are_settings():
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    config = config_from(tomllib.loads(page.partition("```toml\n")[2].partition("```")[0]))

    assert ("table", (32, 16)) == (config.task, config.mlp.hidden)
