"""One step: accumulation equals the whole batch, clipping, decay groups, and what happens to inf and nan."""

import math
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.amp import GradScaler

from chainrule.errors import NonFiniteError
from chainrule.models import Transformer, next_token_loss
from chainrule.train import build
from chainrule.train.checkpoint import State, newest_checkpoint, step_of
from chainrule.train.config import LoopConfig, OptimizerConfig, RegularisationConfig, ScheduleConfig, TrainConfig
from chainrule.train.config_update import OptimizerName
from chainrule.train.engine import autograd
from chainrule.train.events import read_steps
from chainrule.train.loop import accumulate, clip_norm, clip_value, remember
from chainrule.train.nonfinite import bad_entries, first_non_finite
from chainrule.train.optimizers import decay_groups, gradients, make_optimizers
from chainrule.train.penalties import penalty
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from chainrule.update_rules import claimed_by, rule_of_torch
from small_runs import tiny_config


def batch_of(model, windows):
    return {"tokens": torch.randint(20, (windows, 5)), "targets": torch.randint(20, (windows, 5))}


@pytest.mark.parametrize("sizes", [(6,), (3, 3), (4, 2), (1, 4, 1), (1, 2, 3)])
def test_accumulated_parts_of_any_size_give_the_gradient_of_the_whole_batch(sizes):
    model = Transformer(vocabulary=20, layers=1, heads=2, hidden=8, context=5).double()
    parts = [batch_of(model, size) for size in sizes]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    expected_loss = float(autograd(model, next_token_loss, whole))
    expected = [gradient.clone() for gradient in gradients(model)]
    model.zero_grad()

    assert expected_loss == pytest.approx(
        accumulate(autograd, model, next_token_loss, parts, [5 * size for size in sizes]), rel=1e-14
    )
    for one, two in zip(expected, gradients(model), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-17)


def test_a_part_whose_targets_are_all_ignored_changes_neither_loss_nor_gradient():
    model = Transformer(vocabulary=20, layers=1, heads=2, hidden=8, context=5).double()
    parts = [batch_of(model, 2), batch_of(model, 3)]
    expected_loss = accumulate(autograd, model, next_token_loss, parts, [10, 15])
    expected = [gradient.clone() for gradient in gradients(model)]
    model.zero_grad()
    nothing = {"tokens": parts[0]["tokens"], "targets": torch.full((2, 5), -100)}

    assert math.isnan(next_token_loss(model, nothing).item())
    assert expected_loss == accumulate(autograd, model, next_token_loss, [parts[0], nothing, parts[1]], [10, 0, 15])
    for one, two in zip(expected, gradients(model), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_a_micro_batch_size_changes_the_sums_only_by_rounding(tmp_path):
    config = tiny_config(tmp_path, precision="float64", steps=5)
    config = replace(config, model=replace(config.model, dropout=0.0))
    run_training(new_run(config))
    run_training(new_run(replace(config, name="parts", data=replace(config.data, micro_batch_size=3))))
    whole, parts = (read_steps(tmp_path / "runs" / name) for name in ("tiny", "parts"))

    assert [record.loss for record in whole] == pytest.approx([record.loss for record in parts], rel=1e-12)


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_only_a_gradient_above_the_limit_is_scaled_down(limit, expected):
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    clip_norm(model, 5.0, limit)

    assert expected == pytest.approx(model.weight.grad.norm().item())


def test_entries_above_the_limit_are_cut_off_and_inf_stays_to_be_told():
    model = nn.Linear(4, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, -4.0, 0.5, math.inf]])
    clip_value(model, 1.0)

    assert [[1.0, -1.0, 0.5, math.inf]] == model.weight.grad.tolist()


@pytest.mark.parametrize("embeddings", [False, True])
def test_matrices_decay_embeddings_if_asked_biases_and_norms_never_and_each_parameter_counts_once(embeddings):
    model = Transformer(vocabulary=7, layers=1, heads=1, hidden=4, context=4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    config = OptimizerConfig(weight_decay=0.1, decay_embeddings=embeddings)
    decaying, others = ([names[id(p)] for p in group["params"]] for group in decay_groups(model, config))

    assert sorted(names.values()) == sorted(decaying + others)
    assert "blocks.0.mlp.expand.weight" in decaying
    assert embeddings == ("tokens.weight" in decaying) == ("positions.weight" in decaying)
    assert all(name.endswith("bias") or "norm" in name for name in others if not name.startswith(("tokens", "pos")))


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_each_optimizer_follows_its_formula_for_three_updates(name):
    torch.manual_seed(1)
    model = nn.Linear(4, 3, bias=False).double()
    (optimizer,) = make_optimizers(model, OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5))
    group = optimizer.param_groups[0]
    rule = rule_of_torch(type(optimizer), group) or claimed_by(type(optimizer).__name__)
    expected, state = model.weight.detach().clone(), {}
    for _ in range(3):
        gradient = torch.randn(3, 4, dtype=torch.float64)
        expected, state = rule.update(expected, gradient, state, group)
        model.weight.grad = gradient.clone()
        optimizer.step()

    allowed = rule.resolution or 1e-12
    assert (expected - model.weight).norm() <= allowed * expected.norm()


def test_muon_turns_the_hidden_matrices_and_adamw_has_the_rest_each_parameter_once():
    model = Transformer(vocabulary=7, layers=1, heads=1, hidden=4, context=4)
    muon, adamw = make_optimizers(model, OptimizerConfig(name="muon"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    turned, rest = ([names[id(p)] for group in o.param_groups for p in group["params"]] for o in (muon, adamw))

    assert sorted(names.values()) == sorted(turned + rest)
    assert {"blocks.0.attention.query.weight", "blocks.0.mlp.contract.weight"} <= set(turned)
    assert {"tokens.weight", "positions.weight", "norm.weight", "blocks.0.mlp.expand.bias"} <= set(rest)


def test_penalties_are_those_of_the_formula_and_leave_biases_norms_and_embeddings_alone():
    model = Transformer(vocabulary=7, layers=1, heads=1, hidden=4, context=4).double()
    penalty(model, RegularisationConfig(l1=0.3, l2=0.7)).backward()

    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or name in ("tokens.weight", "positions.weight"):
            assert parameter.grad is None
        else:
            torch.testing.assert_close(0.3 * parameter.sign() + 0.7 * parameter, parameter.grad)


def test_an_l1_penalty_drives_weights_towards_zero(tmp_path):
    config = tiny_config(tmp_path, steps=150)
    folders = {}
    for l1 in (0.0, 0.01):
        run_training(new_run(replace(config, name=f"l1-{l1}", regularisation=RegularisationConfig(l1=l1))))
        folders[l1] = newest_checkpoint(tmp_path / "runs" / f"l1-{l1}")
    small = {
        l1: torch.cat(
            [w.flatten() for n, w in load_file(path / "model.safetensors").items() if "mlp" in n and w.ndim > 1]
        )
        for l1, path in folders.items()
    }

    assert (small[0.01].abs() < 1e-2).float().mean() > 2 * (small[0.0].abs() < 1e-2).float().mean()


def test_a_float16_gradient_that_overflows_is_taken_again_at_half_the_scale(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, precision="float16", steps=30)
    scalers = []

    def generous(precision, device):
        scalers.append(GradScaler(device.type, init_scale=2.0**40, enabled=precision == "float16"))
        return scalers[-1]

    monkeypatch.setattr(build, "make_scaler", generous)
    run_training(new_run(config))
    records = read_steps(tmp_path / "runs" / "tiny")

    assert scalers[0].get_scale() < 2.0**40
    assert list(range(1, 31)) == [record.step for record in records]
    assert records[-1].loss < records[0].loss
    assert all(math.isfinite(record.gradient_norm) for record in records)


def test_a_run_stops_early_when_validation_stands_still_and_keeps_the_best_weights(tmp_path):
    config = tiny_config(tmp_path, steps=400, loop=LoopConfig(evaluate_every=5, patience=3, preflight=False))
    wild = replace(config.optimizer, name="adamw", learning_rate=0.2)
    results = run_training(new_run(replace(config, optimizer=wild, schedule=ScheduleConfig("constant", 0))))

    assert "stopped early" == results.outcome
    assert results.best_step + 3 * 5 == results.steps < 400
    again = run_training(open_run(tmp_path / "runs" / "tiny"))
    assert ("stopped early", results.validation_loss) == (again.outcome, again.validation_loss)


def test_the_plateau_schedule_lowers_the_rate_when_validation_stands_still():
    state, config = State(), TrainConfig(schedule=ScheduleConfig("plateau", plateau_patience=2))
    seen = []
    for better in (True, False, False, False, True, False, False):
        remember(state, better, config)
        seen.append(state.reductions)

    assert [0, 0, 1, 1, 1, 1, 2] == seen


def test_a_compiled_run_has_the_losses_of_an_eager_one_but_for_rounding(tmp_path, monkeypatch):
    # without the C++ compiler, which takes a minute and is torch's own affair
    monkeypatch.setattr(build.torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = tiny_config(tmp_path, steps=5, precision="float64")
    config = replace(config, model=replace(config.model, dropout=0.0))
    run_training(new_run(config))
    run_training(new_run(replace(config, name="fast", loop=replace(config.loop, compile="on"))))
    eager, fast = (read_steps(tmp_path / "runs" / name) for name in ("tiny", "fast"))

    assert [record.loss for record in eager] == pytest.approx([record.loss for record in fast], rel=1e-12)


def test_the_deterministic_mode_is_on_in_the_run_alone(tmp_path):
    seen = []
    config = tiny_config(tmp_path, steps=1, loop=LoopConfig(deterministic=True, preflight=False))
    run_training(new_run(config), watchers=[lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())])

    assert ([True], False) == (seen, torch.are_deterministic_algorithms_enabled())


class Overflowing(nn.Module):
    """exp of a large number in its second module."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 2), Exponential(), nn.Linear(2, 1)

    def forward(self, x):
        return self.third(self.second(self.first(x)))


class Exponential(nn.Module):
    def forward(self, x):
        return torch.exp(1000 * x.abs() + 100)


def test_the_first_module_with_inf_is_named_and_the_hooks_are_gone():
    model = Overflowing()
    place = first_non_finite(model, lambda model, batch: model(batch).sum(), torch.randn(3, 2))

    assert "second (Exponential)" == place
    assert not any(module._forward_hooks for module in model.modules())


def test_entries_that_are_not_finite_are_counted():
    tensors = [
        ("a", torch.tensor([1.0, math.nan])),
        ("b", torch.ones(2)),
        ("c", torch.full((3,), math.inf)),
        ("d", None),
    ]

    assert ["a (1 of 2 entries)", "c (all 3 entries)"] == bad_entries(tensors)


def poisoned(at, what):
    """An engine that makes a gradient, or the loss, not finite in one call."""
    calls = []

    def engine(model, loss, batch):
        calls.append(None)
        value = autograd(model, loss, batch)
        if len(calls) == at and what == "gradient":
            model.blocks[1].mlp.expand.weight.grad[0, 0] = math.inf
        return value * math.nan if len(calls) == at and what == "loss" else value

    return engine


@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_inf_or_nan_stops_before_the_update_with_a_diagnosis_and_the_step_can_be_replayed(tmp_path, what):
    folder = tmp_path / "runs" / "tiny"
    run_training(new_run(replace(tiny_config(tmp_path), name="whole")))
    with pytest.raises(NonFiniteError) as stopped:
        run_training(new_run(tiny_config(tmp_path)), engine=poisoned(10, what))
    message = str(stopped.value)

    assert "at step 10; nothing was updated" in message
    assert "losses before: " in message
    assert "lower --optimizer.learning-rate" in message
    if what == "gradient":
        assert "gradients not finite: blocks.1.mlp.expand.weight (1 of 256 entries)" in message
        assert "every activation is finite" in message
    assert {"tokens", "targets"} == set(load_file(folder / "nonfinite" / "step-000010" / "batch-0.safetensors"))
    assert 9 == step_of(newest_checkpoint(folder))

    run_training(open_run(folder))  # the sound engine: dropout and data must be those of the refused step
    whole, replayed = read_steps(tmp_path / "runs" / "whole"), read_steps(folder)
    assert [record.loss for record in whole] == [record.loss for record in replayed]


def test_a_learning_rate_far_too_high_is_told_with_the_place_where_it_began(tmp_path):
    config = tiny_config(tmp_path, steps=60)
    wild = OptimizerConfig(name="sgd", learning_rate=1e25, clip_norm=0.0, weight_decay=0.0)
    with pytest.raises(NonFiniteError, match=r"first activation that is not finite: \S+ \(\w+\)"):
        run_training(new_run(replace(config, optimizer=wild)))
