"""Validation loss, precision, samples, metrics."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch

from chainrule.data.windows import Windows
from chainrule.errors import CheckpointError, ConfigError
from chainrule.models import Transformer, next_token_loss
from chainrule.train.build import choose_device
from chainrule.train.config import SampleConfig, TrainConfig
from chainrule.train.evaluate import validation_loss
from chainrule.train.events import Events, read_evaluations, read_steps
from chainrule.train.precision import choose_precision, in_precision
from chainrule.train.randomness import random_state
from chainrule.train.records import Evaluation, StepRecord
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from chainrule.train.sample import continuation, draw
from small_runs import tiny_config, window_task

CPU = torch.device("cpu")


def small_model(**changes):
    return Transformer(**{"vocabulary": 20, "layers": 1, "heads": 2, "hidden": 8, "context": 5} | changes)


def windows(count=70):
    return Windows(np.random.default_rng(0).integers(0, 20, count * 5 + 1).astype(np.int32), 5)


def test_the_validation_loss_is_the_mean_over_all_tokens_without_dropout_or_draws():
    model, data = small_model(dropout=0.5), windows()
    before = random_state()
    measured = validation_loss(model, next_token_loss, window_task(model, data), CPU)

    assert before == random_state()
    assert model.training
    model.eval()
    whole = next_token_loss(model, data.batch(np.arange(70), CPU)).item()
    assert whole == pytest.approx(measured, rel=1e-6)


def test_a_smaller_measurement_takes_evenly_spread_windows():
    model, data = small_model(), windows()
    task = window_task(model, data)
    expected = next_token_loss(model, data.batch(np.array([0, 17, 35, 52]), CPU)).item()

    assert expected == pytest.approx(validation_loss(model, next_token_loss, task, CPU, 4), rel=1e-6)
    whole = validation_loss(model, next_token_loss, task, CPU)
    assert whole == validation_loss(model, next_token_loss, task, CPU, 999)


def test_bfloat16_changes_the_loss_by_its_rounding_only_and_leaves_gradients_in_float32():
    model, batch = small_model(), windows().batch(np.arange(9), CPU)
    exact = next_token_loss(model, batch)
    rounded = in_precision(next_token_loss, "bfloat16", CPU)(model, batch)
    rounded.backward()

    assert torch.float32 == rounded.dtype
    assert exact.item() == pytest.approx(rounded.item(), rel=2e-2)
    assert exact.item() != rounded.item()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_other_precisions_use_the_loss_itself():
    assert next_token_loss is in_precision(next_token_loss, "float32", CPU)


def test_a_small_model_is_not_timed():
    choice = choose_precision(small_model(), next_token_loss, windows().batch(np.arange(2), CPU), CPU)

    assert ("float32", True) == (choice.precision, choice.reason.startswith("auto: too small to gain"))


def test_a_large_model_is_timed_and_the_reason_has_the_figures():
    model = small_model(hidden=256)
    choice = choose_precision(model, next_token_loss, windows().batch(np.arange(2), CPU), CPU)

    assert choice.precision in ("float32", "bfloat16")
    assert "ms" in choice.reason
    assert all(parameter.grad is None for parameter in model.parameters())


def test_automatic_choices_are_resolved_in_the_runs_configuration(tmp_path):
    results = run_training(new_run(tiny_config(tmp_path, steps=1, precision="auto", device="auto")))
    text = (tmp_path / "runs" / "tiny" / "config.toml").read_text()

    assert "float32" == results.precision
    assert 'precision = "float32"  # auto: too small' in text
    assert 'device = "cpu"' in text or 'device = "cuda"' in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has cuda")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="device is 'cuda': this machine, or this build of torch, has none"):
        choose_device(TrainConfig(device="cuda"))


def test_a_sample_depends_on_its_seed_alone_and_follows_the_settings():
    model = small_model()
    before = random_state()
    settings = SampleConfig(tokens=12, temperature=1.0, top_k=5)
    one, two = (continuation(model, [3, 4], 5, settings, seed=1) for _ in range(2))

    assert one == two
    assert 12 == len(one)
    assert one != continuation(model, [3, 4], 5, settings, seed=2)
    assert before == random_state()


def test_temperature_zero_and_top_one_take_the_most_probable_token():
    logits_V = torch.tensor([0.0, 3.0, 1.0])
    generator = torch.Generator().manual_seed(0)

    assert {1} == {draw(logits_V, SampleConfig(temperature=0.0), generator) for _ in range(20)}
    assert {1} == {draw(logits_V, SampleConfig(top_k=1), generator) for _ in range(20)}


def test_draws_have_the_probabilities_of_the_softmax():
    logits_V = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(logits_V, SampleConfig(temperature=0.5, top_k=2), generator) for _ in range(3000)]

    assert 0 == drawn.count(0)
    assert torch.tensor([2.0, 4.0]).softmax(0)[0].item() == pytest.approx(drawn.count(1) / 3000, abs=0.02)


def test_a_prompt_of_ones_own_is_continued(tmp_path):
    config = tiny_config(tmp_path, sample=SampleConfig(prompt="the cat", tokens=3))

    assert "the cat" == run_training(new_run(config)).prompt


def test_metrics_can_be_read_while_they_are_written(tmp_path):
    record, evaluation = StepRecord(1, 0.1 + 0.2, 1e-3, 0.5, 64, 0.25), Evaluation(1, 3.5, 8)
    events = Events(tmp_path)
    events.step(record)
    events.evaluation(evaluation)

    assert [record] == read_steps(tmp_path)
    assert [evaluation] == read_evaluations(tmp_path)
    events.close()


def test_metrics_after_the_checkpoint_are_forgotten(tmp_path):
    events = Events(tmp_path)
    for step in (1, 2, 3):
        events.step(StepRecord(step, 1.0, 1e-3, 0.5, 64, 0.25))
    events.forget_after(2)
    events.close()

    assert [1, 2] == [record.step for record in read_steps(tmp_path)]


def test_a_file_that_is_no_metrics_file_is_named(tmp_path):
    (tmp_path / "metrics.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(CheckpointError, match=r"metrics.sqlite is no metrics file"):
        Events(tmp_path)


def test_a_run_tells_its_course_in_events(tmp_path):
    run_training(new_run(replace(tiny_config(tmp_path), steps=2)))
    database = sqlite3.connect(tmp_path / "runs" / "tiny" / "metrics.sqlite")
    kinds = [kind for (kind,) in database.execute("SELECT kind FROM events ORDER BY time")]
    database.close()

    assert ["started", "finished"] == kinds
