"""One step: accumulation equals the whole batch, clipping, decay groups, and what happens to inf and nan."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chainrule.errors import NonFiniteError
from chainrule.models import Transformer, next_token_loss
from chainrule.train.checkpoint import newest_checkpoint, step_of
from chainrule.train.config import OptimizerConfig
from chainrule.train.engine import autograd
from chainrule.train.events import read_steps
from chainrule.train.loop import accumulate, clip
from chainrule.train.nonfinite import bad_entries, first_non_finite
from chainrule.train.optimizers import decay_groups, gradients
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
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
    clip(model, 5.0, limit)

    assert expected == pytest.approx(model.weight.grad.norm().item())


def test_matrices_and_embeddings_decay_biases_and_norms_do_not_and_each_parameter_counts_once():
    model = Transformer(vocabulary=7, layers=1, heads=1, hidden=4, context=4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = ([names[id(p)] for p in group["params"]] for group in decay_groups(model, 0.1))

    assert sorted(names.values()) == sorted(decaying + others)
    assert {"tokens.weight", "positions.weight", "blocks.0.mlp.expand.weight"} <= set(decaying)
    assert all(name.endswith("bias") or "norm" in name for name in others)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sgd", lambda p, g: p - 0.1 * (g + 0.5 * p)),
        ("momentum", lambda p, g: p - 0.1 * (g + 0.5 * p)),
        ("adamw", lambda p, g: p * (1 - 0.1 * 0.5) - 0.1 * g / (g.abs() + 1e-8)),
    ],
)
def test_the_first_update_is_that_of_the_formula(name, formula):
    from chainrule.train.optimizers import make_optimizer

    model = nn.Linear(3, 2, bias=False).double()
    optimizer = make_optimizer(model, OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5))
    before, gradient = model.weight.detach().clone(), torch.randn(2, 3, dtype=torch.float64)
    model.weight.grad = gradient.clone()
    optimizer.step()

    torch.testing.assert_close(formula(before, gradient), model.weight.detach(), rtol=1e-9, atol=0)


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
