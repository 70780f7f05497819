"""Whole runs on tables: they learn what can be learned, report it beside the baseline, resume exactly, and predict."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chainrule.api import predict
from chainrule.errors import ConfigError, DataError
from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from chainrule.train.settings import load_config, to_toml
from chainrule.train.tasks.table_data import load
from child_runs import finish_child, kill_child_after, start_child
from small_tables import table_config, write_csv, write_mixed, write_shipped

linear_model = pytest.importorskip("sklearn.linear_model")


def trained(folder, file, **changes):
    config = table_config(folder, file, **changes)
    return run_training(new_run(config)), config


def sklearn_score(model, results, config):
    """A scikit-learn model fitted and scored on the rows of a run."""
    sides = load(Path(results.folder), config).sides
    model.fit(sides["training"].x_NF, sides["training"].y_N)
    return model.score(sides["test"].x_NF, sides["test"].y_N)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_diabetes_is_learned_as_well_as_by_linear_regression(tmp_path):
    file = write_shipped("diabetes", tmp_path)
    results, config = trained(
        tmp_path, file, steps=300, optimizer={"learning_rate": 3e-3}, mlp={"hidden": (64, 64), "dropout": 0.3}
    )
    theirs = sklearn_score(linear_model.LinearRegression(), results, config)

    assert results.metrics["test R2"] > 0.40
    assert results.metrics["test R2"] > theirs - 0.06
    assert results.metrics["baseline R2"] < 0.05
    assert results.beats_baseline


@pytest.mark.parametrize(("name", "least"), [("breast_cancer", 0.94), ("wine", 0.94)])
def test_classes_are_learned_as_well_as_by_logistic_regression(tmp_path, name, least):
    results, config = trained(tmp_path, write_shipped(name, tmp_path), steps=150)
    theirs = sklearn_score(linear_model.LogisticRegression(max_iter=1000), results, config)

    assert results.metrics["test accuracy"] >= least
    assert results.metrics["test accuracy"] > theirs - 0.03
    assert results.metrics["baseline accuracy"] < 0.7


def test_handwritten_digits_are_learned_as_well_as_by_logistic_regression(tmp_path):
    file = write_shipped("digits", tmp_path)
    results, config = trained(tmp_path, file, steps=400, mlp={"hidden": (64,)})
    theirs = sklearn_score(linear_model.LogisticRegression(max_iter=1000), results, config)

    assert results.metrics["test accuracy"] > 0.95
    assert results.metrics["test accuracy"] > theirs - 0.02
    assert results.metrics["baseline accuracy"] < 0.15


def test_gaps_categories_booleans_and_dates_are_learned_from(tmp_path):
    results, _ = trained(tmp_path, write_mixed(tmp_path / "m.csv", rows=600), steps=400, table={"drop": ("class",)})

    assert results.metrics["test R2"] > 0.8  # a tenth of the sizes, which decide most, is missing


def test_a_linear_model_without_decay_finds_what_linear_regression_finds(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 3))
    y = x @ [1.0, -2.0, 0.5] + 3
    file = write_csv(tmp_path / "t.csv", ["a", "b", "c", "target"], np.column_stack([x, y]).tolist())
    results, _ = trained(
        tmp_path, file, steps=300, method="full-batch", mlp={"hidden": ()}, optimizer={"weight_decay": 0.0}
    )

    assert results.metrics["test R2"] > 0.9999


def test_counts_are_learned_by_the_poisson_loss(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, 400)
    file = write_csv(tmp_path / "t.csv", ["x", "target"], [[a, draw.poisson(np.exp(1 + a))] for a in x.tolist()])
    results, _ = trained(tmp_path, file, steps=300, loss="poisson", table={"goal": "regression"})
    found = predict(results.folder, write_csv(tmp_path / "new.csv", ["x"], [[-0.5], [0.5]]))

    assert [np.exp(0.5), np.exp(1.5)] == pytest.approx(found.answers, rel=0.15)


def test_a_run_on_parquet_equals_that_on_the_same_table_as_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    csv = pytest.importorskip("pyarrow.csv")
    file = write_shipped("wine", tmp_path)
    parquet.write_table(csv.read_csv(file), tmp_path / "wine.parquet")
    one, _ = trained(tmp_path, file, steps=20)
    two, _ = trained(tmp_path, tmp_path / "wine.parquet", steps=20, name="other")

    assert one.validation_loss == two.validation_loss


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_table_is_learned_in_short_precisions(tmp_path, precision):
    for target in ("target", "class", "colour"):
        results, _ = trained(
            tmp_path, write_mixed(tmp_path / "m.csv"), name=target, precision=precision, table={"target": target}
        )

        assert results.beats_baseline


def test_a_run_that_gets_no_better_stops_early_and_is_reported_and_predicts_with_its_best_weights(tmp_path):
    file = write_shipped("diabetes", tmp_path)
    results, _ = trained(
        tmp_path,
        file,
        steps=2000,
        mlp={"hidden": (64,)},
        loop={"evaluate_every": 10, "patience": 4},
        table={"split": "last"},
    )
    names, *rows = file.read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([names, *rows[-66:]]))
    found = predict(results.folder, tmp_path / "test.csv")

    assert "stopped early" == results.outcome
    assert results.steps == results.best_step + 40
    assert f"step-{results.best_step:06d}" == found.checkpoint.name
    assert results.metrics["test R2"] == pytest.approx(found.scores["R2"])
    assert results.validation_loss == pytest.approx(results.best_loss)


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_shows_the_scores_beside_the_baseline_s_and_the_confusion(tmp_path):
    results, _ = trained(tmp_path, write_shipped("wine", tmp_path))
    text = (Path(results.folder) / "report.txt").read_text()
    kept = json.loads((Path(results.folder) / "report.json").read_text())

    assert "scores          validation  test        always the majority, test" in text
    assert "  macro F1 " in text
    assert "true            predicted  class_0 class_1 class_2" in text
    assert kept["metrics"]["test accuracy"] == results.metrics["test accuracy"]
    assert kept["data"]["training"] + kept["data"]["validation"] + kept["data"]["test"] == 178


def test_the_scores_of_the_report_are_those_of_predictions_for_the_test_rows(tmp_path):
    file = write_shipped("diabetes", tmp_path)
    results, _ = trained(tmp_path, file, table={"split": "last"})
    names, *rows = file.read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([names, *rows[-66:]]))
    found = predict(results.folder, tmp_path / "test.csv")

    assert 66 == results.data["test"] == found.scored
    for name, value in found.scores.items():
        assert results.metrics[f"test {name}"] == pytest.approx(value)


# --- prediction -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    file = write_mixed(folder / "mixed.csv")
    results, _ = trained(folder, file, table={"target": "class", "drop": ("target",)})
    return folder, Path(results.folder)


def test_new_rows_are_predicted_in_their_order_whatever_the_order_of_the_columns(mixed_run):
    folder, run = mixed_run
    small, big = ["-2", "blue", "yes", "2024-03-01"], ["2", "red", "no", "2024-03-20"]
    one = write_csv(folder / "one.csv", ["size", "colour", "paid", "day"], [small, big])
    two = write_csv(folder / "two.csv", ["day", "extra", "paid", "size", "colour"], [
        ["2024-03-01", 1, "yes", "-2", "blue"], ["2024-03-20", 2, "no", "2", "red"]
    ])  # fmt: skip
    found = predict(run, one)

    assert ("high", "low") == found.target.classes
    assert [[0, 1], [1, 0]] == found.answers.round().tolist()
    np.testing.assert_array_equal(found.answers, predict(run, two).answers)
    assert found.to_csv().startswith("prediction,probability of high,probability of low\nlow,")


def test_rows_with_a_known_target_are_scored(mixed_run):
    folder, run = mixed_run
    found = predict(run, folder / "mixed.csv")

    assert 200 == found.scored
    assert found.scores["accuracy"] > 0.85


def test_unseen_words_and_missing_cells_are_told(mixed_run):
    folder, run = mixed_run
    file = write_csv(folder / "odd.csv", ["size", "colour", "paid", "day"], [["1", "pink", "", "2024-03-01"]] * 2)
    said = " ".join(predict(run, file).remarks)

    assert "'paid': 2 missing cells, in training there were none; the median" in said


def test_missing_columns_are_refused_by_name(mixed_run):
    folder, run = mixed_run
    with pytest.raises(DataError, match=r"few\.csv has no column 'colour', 'paid', which the model needs"):
        predict(run, write_csv(folder / "few.csv", ["size", "day"], [["1", "2024-03-01"]]))


def test_a_damaged_file_of_new_rows_is_refused_with_its_line(mixed_run):
    folder, run = mixed_run
    (folder / "bad.csv").write_text("size,colour,paid,day\n1,red\n")
    with pytest.raises(DataError, match=r"bad\.csv:2 has 2 fields, 4 are expected"):
        predict(run, folder / "bad.csv")


def test_a_run_on_text_is_no_run_to_predict_by(tmp_path):
    (tmp_path / "config.toml").write_text('task = "text"\n')
    with pytest.raises(ConfigError, match="was trained on text; chainrule predict takes a run of task table"):
        predict(tmp_path, tmp_path / "x.csv")


# --- resuming ---------------------------------------------------------------------------------------------------------


def same_weights(one, two):
    for file in ("model.safetensors", "optimizer.safetensors"):
        first, second = load_file(newest_checkpoint(one) / file), load_file(newest_checkpoint(two) / file)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    return True


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_run_that_is_resumed_in_the_middle_equals_one_that_never_stopped(tmp_path, norm):
    file = write_mixed(tmp_path / "m.csv")
    settings = {"mlp": {"norm": norm, "dropout": 0.3}, "loop": {"evaluate_every": 7, "checkpoint_every": 10}}
    whole, _ = trained(tmp_path, file, **settings)
    start_over, _ = trained(tmp_path, file, **settings, name="again")
    folder = Path(start_over.folder)
    for later in sorted((folder / "checkpoints").glob("step-*"))[1:]:  # as if it had been killed after the first one
        [path.unlink() for path in later.iterdir()]
        later.rmdir()
    file.unlink()  # a resumed run does not read it again
    run_training(open_run(folder))

    assert [(r.step, r.loss) for r in read_steps(Path(whole.folder))] == [(r.step, r.loss) for r in read_steps(folder)]
    assert read_evaluations(Path(whole.folder)) == read_evaluations(folder)
    assert same_weights(Path(whole.folder), folder)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_and_resumed_run_equals_one_that_was_never_killed(tmp_path):
    file = write_mixed(tmp_path / "m.csv")
    config = table_config(
        tmp_path,
        file,
        steps=400,
        mlp={"norm": "batch", "dropout": 0.3},
        loop={"evaluate_every": 11, "checkpoint_every": 7},
    )
    for name in ("whole", "killed"):
        (tmp_path / f"{name}.toml").write_text(to_toml(replace(config, name=name)))
    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"

    finish_child(start_child(tmp_path / "whole.toml"))
    kill_child_after(start_child(tmp_path / "killed.toml"), killed, 23, 0.005)
    finish_child(start_child(killed))

    assert [(r.step, r.loss) for r in read_steps(whole)] == [(r.step, r.loss) for r in read_steps(killed)]
    assert same_weights(whole, killed)


def test_the_settings_of_a_table_come_back_from_their_file(tmp_path):
    config = table_config(tmp_path, "some file.csv", mlp={"hidden": (3, 4)}, table={"drop": ("a b", 'c"d')})
    (tmp_path / "run.toml").write_text(to_toml(config))

    assert config == load_config(tmp_path / "run.toml")
