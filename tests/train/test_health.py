"""What is told of a run that is not well: where by depth, since which step, what to try; a healthy run hears nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from chainrule.train.config import OptimizerConfig, ScheduleConfig
from chainrule.train.events import read_notes
from chainrule.train.health import Health, layer_of, profile
from chainrule.train.records import StepRecord
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from small_runs import tiny_config


def trained(model, steps, rate=1e-2, loss_at=lambda step, loss: loss):
    """What Health tells of a model that learns to copy its input."""
    told = []
    health, optimizer = Health(told.append), torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(1, steps + 1):
        x = torch.randn(16, 8)
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = float(nn.utils.get_total_norm([p.grad for p in model.parameters()]))
        health(StepRecord(step, loss_at(step, float(loss.detach())), rate, norm, 16, 0.0), model, (optimizer,))
        optimizer.step()
    return told


def deep(activation, layers=8):
    return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), activation()) for _ in range(layers)), nn.Linear(8, 8))


def test_a_deep_sigmoid_network_is_told_that_its_gradient_vanishes_layer_by_layer():
    (text,) = trained(deep(nn.Sigmoid), 60)

    assert "the gradient vanishes on its way down, since step 10 or before" in text
    assert "by depth: 0 " in text
    assert "Use relu, gelu or silu in place of sigmoid" in text


def test_a_network_that_scales_its_signal_rightly_hears_nothing():
    model = deep(nn.ReLU, 4)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)

    assert [] == trained(model, 100)


def test_a_loss_that_rises_is_told_with_the_step_since_when():
    (text,) = trained(nn.Linear(8, 8), 200, loss_at=lambda step, loss: 1 if step <= 100 else 1 + 0.1 * (step - 100))

    assert "the loss diverges since step 100: 1 then" in text
    assert "Lower --optimizer.learning-rate (now 0.01)" in text


def test_a_gradient_that_grows_is_told_with_its_layer():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.calls = nn.Linear(8, 8), nn.Linear(8, 8), 0

        def forward(self, x):
            self.calls += 1
            return self.second(self.first(x)) * (1 if self.calls < 150 else 100)

    told = trained(Growing(), 170, rate=1e-4)

    assert any("the gradient explodes since step 15" in text and "by depth: first" in text for text in told)


def test_each_symptom_is_told_once_and_kept_among_the_events(tmp_path):
    config = tiny_config(tmp_path, steps=200, schedule=ScheduleConfig("constant", warmup_steps=0))
    wild = OptimizerConfig(name="sgd", learning_rate=40.0, clip_norm=1.0, weight_decay=0.0)
    run_training(new_run(replace(config, optimizer=wild)))
    notes = [text for kind, text in read_notes(tmp_path / "runs" / "tiny") if kind == "watch"]

    assert 1 == sum("the loss diverges since step" in text for text in notes)


def test_a_healthy_run_hears_nothing(tmp_path):
    run_training(new_run(tiny_config(tmp_path, steps=150)))

    assert [] == [text for kind, text in read_notes(tmp_path / "runs" / "tiny") if kind == "watch"]


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("blocks.3.mlp.expand.weight", "blocks.3"),
        ("head.weight", "head"),
        ("model.layers.11.x", "model.layers.11"),
        ("0.1.weight", "0"),
        ("h2.weight", "h2"),
        ("w", "w"),
    ],
)
def test_a_layer_is_the_path_up_to_its_first_number(path, layer):
    assert layer == layer_of(path)


def test_the_profile_is_gradient_norm_times_weight_norm_of_each_layer():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    model(torch.ones(1, 3)).sum().backward()
    weight = model[1].weight

    assert {"0", "1"} == set(profile(model))
    assert (weight.norm() * weight.grad.norm()).item() == pytest.approx(profile(model)["1"])
