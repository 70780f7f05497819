"""A plan says what a run would take, by measuring an update, and leaves nothing behind."""

from dataclasses import replace

import pytest
import torch

from chainrule import cli
from chainrule.train.plan import plan_run
from chainrule.train.records import size
from chainrule.train.settings import to_toml
from small_runs import tiny_config


@pytest.mark.parametrize(("name", "moments"), [("adamw", 2), ("momentum", 1), ("sgd", 0)])
def test_memory_is_that_of_weights_gradients_and_the_optimizers_moments(tmp_path, name, moments):
    config = tiny_config(tmp_path)
    plan = plan_run(replace(config, optimizer=replace(config.optimizer, name=name)))

    assert 4 * plan.parameters == plan.gradients
    assert 0 <= plan.weights - 4 * plan.parameters <= 2 * 64  # the causal masks of two blocks
    assert moments * plan.gradients == pytest.approx(plan.states, abs=4 * 64)  # and a step count each
    assert plan.activations > 0


def test_activations_grow_with_the_micro_batch_and_weights_do_not(tmp_path):
    config = tiny_config(tmp_path)
    small, large = (
        plan_run(replace(config, data=replace(config.data, batch_size=size, micro_batch_size=size))) for size in (2, 8)
    )

    assert small.weights == large.weights
    assert 4 * small.activations == pytest.approx(large.activations, rel=0.05)


def test_time_counts_every_update_and_every_measurement(tmp_path):
    plan = plan_run(tiny_config(tmp_path, steps=17))

    assert (17, 3, 17 * 4 * 8) == (plan.steps, plan.measurements, plan.terms)
    assert 17 * plan.step + 3 * plan.validation == plan.seconds


def test_nothing_is_written_and_no_random_state_moves(tmp_path):
    config = tiny_config(tmp_path)
    before = torch.get_rng_state()
    plan_run(config)

    assert torch.equal(before, torch.get_rng_state())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [["plan"], ["train", "--plan"]])
def test_the_command_prints_the_plan_of_a_file_and_its_flags(tmp_path, capsys, command):
    (tmp_path / "run.toml").write_text(to_toml(tiny_config(tmp_path)))

    assert 0 == cli.run([command[0], str(tmp_path / "run.toml"), "--steps", "23", *command[1:]])
    printed = capsys.readouterr().out
    assert "23 steps" in printed
    assert "memory" in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3 * 10**9, "3.0 GB")]
)
def test_sizes_are_in_decimal_units(count, text):
    assert text == size(count)
