"""Whole runs in this process: what a finished, interrupted, refused run leaves behind."""

import json
import math
import os
import random
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import chainrule as cr
from chainrule.engines import chain_rule_engine
from chainrule.errors import CheckpointError, ConfigError, DataError
from chainrule.train.checkpoint import checkpoints, newest_checkpoint, step_of
from chainrule.train.config import LoopConfig, RegularisationConfig, ScheduleConfig
from chainrule.train.engine import autograd
from chainrule.train.events import read_evaluations, read_steps
from chainrule.train.records import Silent
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from chainrule.train.settings import load_config
from small_runs import tiny_config


class Recorder(Silent):
    """Keeps what it hears."""

    def __init__(self):
        self.lines, self.steps, self.verdicts = [], [], []

    def say(self, label, text):
        self.lines.append((label, text))

    def step(self, record):
        self.steps.append(record)

    def reported(self, report):
        self.verdicts.append(report.ok)


class Verdict:
    """A preflight's report."""

    def __init__(self, ok):
        self.ok = ok

    def to_dict(self):
        return {"verdict": "pass" if self.ok else "fail", "findings": []}


def test_a_finished_run_leaves_config_tokenizer_metrics_checkpoints_and_report(tmp_path):
    config = tiny_config(tmp_path)
    results = run_training(new_run(config))
    folder = tmp_path / "runs" / "tiny"
    report = json.loads((folder / "report.json").read_text())

    assert "finished" == results.outcome == report["outcome"]
    assert new_run(replace(config, name="")).config == replace(load_config(folder / "config.toml"), name="")
    assert list(range(1, 21)) == [record.step for record in read_steps(folder)]
    assert [5, 10, 15, 20] == [evaluation.step for evaluation in read_evaluations(folder)]
    assert 20 == step_of(checkpoints(folder)[-1])
    assert (folder / "tokenizer.json").is_file()
    assert f"{results.validation_loss:.4f}" in (folder / "report.txt").read_text()
    assert results.continuation
    assert 20 * 4 * 8 == results.terms_seen


def test_the_loss_falls_below_that_of_guessing_and_both_baselines_are_told(tmp_path):
    listener = Recorder()
    results = run_training(new_run(tiny_config(tmp_path, steps=150)), listener=listener)

    assert results.validation_loss < math.log(280) - 1.5
    assert 0 < results.baseline_loss < math.log(280)
    assert [text for label, text in listener.lines if label == "to beat" and f"{results.baseline_loss:.4f}" in text]


def test_the_same_configuration_gives_bitwise_the_same_losses(tmp_path):
    one, two = Recorder(), Recorder()
    run_training(new_run(tiny_config(tmp_path)), listener=one)
    torch.randn(7)  # the caller's own draws do not matter
    run_training(new_run(replace(tiny_config(tmp_path), name="again")), listener=two)

    assert [record.loss for record in one.steps] == [record.loss for record in two.steps]


def test_the_callers_random_states_and_signal_handlers_come_back(tmp_path):
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        signal.getsignal(signal.SIGINT),
    )
    run_training(new_run(tiny_config(tmp_path, steps=2)))

    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate(), signal.getsignal(signal.SIGINT))


def with_optimizer(name, config):
    return replace(config, optimizer=replace(config.optimizer, name=name))


MODES = {
    **{name: partial(with_optimizer, name) for name in ("nesterov", "rmsprop", "adagrad", "lion", "adafactor", "muon")},
    "bfloat16": lambda config: replace(config, precision="bfloat16"),
    "float16": lambda config: replace(config, precision="float16"),
    "accumulated": lambda config: replace(config, data=replace(config.data, micro_batch_size=3)),
    "one-cycle": lambda config: replace(config, schedule=ScheduleConfig("one-cycle")),
    "plateau": lambda config: replace(config, schedule=ScheduleConfig("plateau", plateau_patience=1)),
    "recomputed": lambda config: replace(config, loop=replace(config.loop, recompute=True)),
    "sampled": lambda config: replace(config, sample=replace(config.sample, every=4)),
    "penalties": lambda config: replace(config, regularisation=RegularisationConfig(l1=1e-3, l2=1e-3)),
    "chain rule": lambda config: replace(config, gradient="chain_rule"),
    "packed llama on bytes": lambda config: replace(
        config,
        model=replace(config.model, family="llama", key_value_heads=1),
        data=replace(config.data, tokenizer="bytes", pack=True),
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_run_interrupted_in_any_mode_goes_on_bitwise_the_same(tmp_path, mode):
    class Interrupting(Recorder):
        def step(self, record):
            super().step(record)
            if record.step == 9:
                os.kill(os.getpid(), signal.SIGINT)

    config = MODES[mode](tiny_config(tmp_path, steps=14))
    engine = chain_rule_engine() if config.gradient == "chain_rule" else autograd
    whole, first, second = Recorder(), Interrupting(), Recorder()
    run_training(new_run(replace(config, name="whole")), listener=whole, engine=engine)
    run_training(new_run(config), listener=first, engine=engine)
    run_training(open_run(tmp_path / "runs" / "tiny"), listener=second, engine=engine)

    assert 9 == len(first.steps)
    assert [record.loss for record in whole.steps] == [record.loss for record in first.steps + second.steps]
    one, two = (
        load_file(newest_checkpoint(tmp_path / "runs" / name) / "optimizer.safetensors") for name in ("whole", "tiny")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_and_it_goes_on_bitwise_the_same(tmp_path, number):
    class Interrupting(Recorder):
        def step(self, record):
            super().step(record)
            if record.step == 9:
                os.kill(os.getpid(), number)

    whole, first, second = Recorder(), Interrupting(), Recorder()
    run_training(new_run(replace(tiny_config(tmp_path), name="whole")), listener=whole)
    results = run_training(new_run(tiny_config(tmp_path)), listener=first)

    assert ("interrupted", 9) == (results.outcome, results.steps)
    assert "finished" == run_training(open_run(tmp_path / "runs" / "tiny"), listener=second).outcome
    assert [record.loss for record in whole.steps] == [record.loss for record in first.steps + second.steps]


def test_a_second_signal_stops_at_once_and_says_how_to_go_on(tmp_path):
    class Impatient(Recorder):
        def step(self, record):
            if record.step == 9:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"step 7 is saved; go on with: chainrule train --resume .*tiny"):
        run_training(new_run(tiny_config(tmp_path)), listener=Impatient())


def test_a_failed_preflight_trains_nothing(tmp_path):
    listener = Recorder()
    config = tiny_config(tmp_path, loop=LoopConfig(preflight=True))
    results = run_training(new_run(config), preflight=lambda *_: Verdict(ok=False), listener=listener)

    assert ("refused by preflight", 0) == (results.outcome, results.steps)
    assert [False] == listener.verdicts
    assert [] == listener.steps
    assert "fail" == results.preflight["verdict"]


def test_a_preflight_sees_model_loss_two_batches_and_optimizer_and_changes_no_loss(tmp_path):
    seen, plain, checked = [], Recorder(), Recorder()

    def preflight(model, loss, batches, optimizers):
        seen.append((model.training, loss(model, batches[0]).item(), len(batches), len(optimizers[0].param_groups)))
        return Verdict(ok=True)

    run_training(new_run(tiny_config(tmp_path)), listener=plain)
    config = replace(tiny_config(tmp_path, loop=LoopConfig(5, 8, 7, preflight=True)), name="checked")
    results = run_training(new_run(config), preflight=preflight, listener=checked)

    assert [(True, 2, 2)] == [(mode, batches, groups) for mode, _, batches, groups in seen]
    assert {"verdict": "pass", "findings": []} == results.preflight
    assert [record.loss for record in plain.steps] == [record.loss for record in checked.steps]


def test_watchers_see_every_step_with_its_gradients(tmp_path):
    norms = []

    def watch(record, model, optimizers):
        norms.append((record.step, all(parameter.grad is not None for parameter in model.parameters())))

    run_training(new_run(tiny_config(tmp_path, steps=3)), watchers=[watch])

    assert [(1, True), (2, True), (3, True)] == norms


def test_the_public_function_hands_watchers_on(tmp_path):
    steps = []
    cr.train(tiny_config(tmp_path, steps=3), watchers=[lambda record, model, optimizers: steps.append(record.step)])

    assert [1, 2, 3] == steps


@pytest.mark.parametrize(("method", "windows"), [("stochastic", 1), ("mini-batch", 4), ("full-batch", None)])
def test_a_method_is_the_number_of_windows_in_an_update(tmp_path, method, windows):
    listener = Recorder()
    results = run_training(new_run(tiny_config(tmp_path, method=method, steps=2)), listener=listener)
    whole = (results.data["training_tokens"] - 1) // 8

    assert [8 * (windows or whole)] * 2 == [record.terms for record in listener.steps]


def test_a_batch_larger_than_the_text_is_refused_and_leaves_no_folder(tmp_path):
    config = tiny_config(tmp_path)
    with pytest.raises(
        DataError, match=r"100000 needed: give more text, or lower --model.context or --data.batch-size"
    ):
        run_training(new_run(replace(config, data=replace(config.data, batch_size=100_000))))

    assert not (tmp_path / "runs").exists()


def test_a_taken_name_is_refused(tmp_path):
    run_training(new_run(tiny_config(tmp_path, steps=1)))
    with pytest.raises(ConfigError, match=r"tiny exists: take another --name, or go on with it"):
        new_run(tiny_config(tmp_path))


def test_runs_without_a_name_are_numbered(tmp_path):
    folders = [run_training(new_run(tiny_config(tmp_path, steps=1, name=""))).folder for _ in range(2)]

    assert ["transformer-001", "transformer-002"] == [os.path.basename(folder) for folder in folders]


def test_a_changed_setting_is_refused_when_resuming(tmp_path):
    run_training(new_run(tiny_config(tmp_path)))
    path = tmp_path / "runs" / "tiny" / "config.toml"
    path.write_text(path.read_text().replace("steps = 20", "steps = 30"))
    with pytest.raises(ConfigError, match=r"steps is 30, was 20.*start a new run"):
        open_run(tmp_path / "runs" / "tiny")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"is no run folder: it has no config.toml"):
        open_run(tmp_path)


def test_resuming_a_finished_run_only_reports_again(tmp_path):
    first, listener = run_training(new_run(tiny_config(tmp_path))), Recorder()
    again = run_training(open_run(tmp_path / "runs" / "tiny"), listener=listener)

    assert [] == listener.steps
    assert first.validation_loss == again.validation_loss


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path):
    config = tiny_config(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="no step is saved yet"):
        run_training(new_run(replace(config, loop=LoopConfig())), preflight=interrupted)
    results = run_training(open_run(tmp_path / "runs" / "tiny"))

    assert ("finished", 20) == (results.outcome, results.steps)


def interrupted(*_):
    """A preflight in which the user presses Ctrl-C."""
    raise KeyboardInterrupt
