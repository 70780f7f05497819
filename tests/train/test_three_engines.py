"""The same model, seed and batches trained by three engines that share no code: the loss curves coincide."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from chainrule.api import gradient_engine
from chainrule.data.windows import Windows
from chainrule.models import Transformer, next_token_loss
from chainrule.train.checkpoint import State
from chainrule.train.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RegularisationConfig,
    ScheduleConfig,
    TrainConfig,
)
from chainrule.train.loop import Job, train_step
from chainrule.train.optimizers import make_optimizers
from chainrule.train.penalties import penalised
from chainrule.train.precision import make_scaler
from small_runs import window_task

STEPS = 20
CONFIG = TrainConfig(
    steps=STEPS,
    precision="float64",
    model=ModelConfig(layers=1, heads=2, hidden=8, context=4),
    data=DataConfig(batch_size=2),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    schedule=ScheduleConfig(warmup_steps=4),
)


def losses(gradient, folder, config=CONFIG, dropout=0.0):
    """The losses of 20 steps of AdamW in float64, gradients by the engine of this name."""
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(0)
    model = Transformer(
        vocabulary=9, layers=1, heads=2, hidden=8, context=4, dropout=dropout, generator=generator
    ).double()
    tokens = np.random.default_rng(0).integers(0, 9, 201).cumsum().astype(np.int32) % 9
    windows = Windows(tokens, 4)
    job = Job(
        config=replace(config, gradient=gradient),
        task=window_task(model, windows, {"stochastic": 1, "full-batch": len(windows)}.get(config.method, 2)),
        model=model,
        optimizers=make_optimizers(model, config.optimizer),
        scaler=make_scaler("float64", torch.device("cpu")),
        loss=next_token_loss,
        objective=next_token_loss,
        stepped=penalised(next_token_loss, config.regularisation),
        engine=gradient_engine(gradient),
        device=torch.device("cpu"),
        folder=folder,
        facts={},
    )
    state = State()
    return [train_step(job, state).loss for _ in range(STEPS)]


def test_the_chain_rule_trains_as_autograd_does_to_1e_12(tmp_path):
    expected = losses("autograd", tmp_path)

    assert expected[-1] < expected[0]
    assert expected == pytest.approx(losses("chain_rule", tmp_path), rel=0, abs=1e-12)


@pytest.mark.slow
def test_finite_differences_train_as_autograd_does_to_1e_9(tmp_path):
    assert losses("autograd", tmp_path) == pytest.approx(losses("numerical", tmp_path), rel=0, abs=1e-9)


@pytest.mark.parametrize("method", ["stochastic", "full-batch"])
def test_each_method_trains_by_the_chain_rule_as_by_autograd(tmp_path, method):
    config = replace(CONFIG, method=method)

    assert losses("autograd", tmp_path, config) == pytest.approx(
        losses("chain_rule", tmp_path, config), rel=0, abs=1e-12
    )


@pytest.mark.parametrize("name", ["momentum", "nesterov", "rmsprop", "adagrad", "adam", "lion", "adafactor", "muon"])
def test_each_optimizer_trains_by_the_chain_rule_as_by_autograd(tmp_path, name):
    config = replace(CONFIG, optimizer=replace(CONFIG.optimizer, name=name))
    expected = losses("autograd", tmp_path, config)

    assert len(set(expected)) == STEPS
    assert expected == pytest.approx(losses("chain_rule", tmp_path, config), rel=0, abs=1e-9)


def test_penalties_are_differentiated_by_the_chain_rule_as_by_autograd(tmp_path):
    config = replace(CONFIG, regularisation=RegularisationConfig(l1=1e-3, l2=1e-2))
    expected = losses("autograd", tmp_path, config)

    assert expected != losses("autograd", tmp_path)
    assert expected == pytest.approx(losses("chain_rule", tmp_path, config), rel=0, abs=1e-12)


def test_with_dropout_the_chain_rule_draws_the_masks_that_autograd_draws(tmp_path):
    one, two = (losses(gradient, tmp_path, dropout=0.2) for gradient in ("autograd", "chain_rule"))

    assert one == pytest.approx(two, rel=0, abs=1e-12)
