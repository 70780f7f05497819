"""As many examples at once as the memory holds, and why; what does not count leaves random states and buffers alone."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chainrule.errors import NonFiniteError
from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.engine import autograd
from chainrule.train.memory import examples_at_once, kept_for_backward
from chainrule.train.moment import moment, unmoved
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from chainrule.train.settings import load_config
from small_runs import tiny_config


@pytest.mark.parametrize(
    ("wanted", "each", "free", "chosen"),
    [(8, 10, 1000, 8), (80, 10, 1000, 50), (80, 10**6, 1000, 1), (1000, 1, 10**9, 64), (1000, 10, None, 64)],
)
def test_half_of_the_free_memory_is_filled_and_at_most_64_examples_are_taken(wanted, each, free, chosen):
    assert chosen == examples_at_once("window", wanted, each, free)[0]


def test_the_reason_has_the_figures():
    reason = "auto: 50 windows of 80 at once; each keeps 10 B for backward, 1.0 kB are free"

    assert reason == examples_at_once("window", 80, 10, 1000)[1]


def test_what_is_kept_for_backward_is_counted_once_and_without_the_weights():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(5, 3)

    assert 4 * (5 * 3 + 5 * 4) == kept_for_backward(model, lambda: model(x).sum())


def test_a_run_writes_down_how_many_windows_it_takes_at_once(tmp_path):
    config = tiny_config(tmp_path, steps=1)
    run_training(new_run(replace(config, data=replace(config.data, micro_batch_size=0))))
    folder = tmp_path / "runs" / "tiny"

    assert 4 == load_config(folder / "config.toml").data.micro_batch_size
    assert "# auto: 4 windows of 4 at once; each keeps" in (folder / "config.toml").read_text()


def test_a_pass_that_does_not_count_moves_neither_statistics_nor_masks():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = [buffer.clone() for buffer in model.buffers()]
    expected = moment(model)
    with unmoved(model):
        first = model(torch.ones(6, 3))

    assert all(torch.equal(one, two) for one, two in zip(before, model.buffers(), strict=True))
    expected.restore()
    assert torch.equal(first, model(torch.ones(6, 3)))


def test_a_refused_step_leaves_running_statistics_as_they_were_before_it(tmp_path):
    config = tiny_config(tmp_path, steps=8)
    seen = []

    def engine(model, loss, batch):
        if not seen:
            model.register_module("statistics", nn.BatchNorm1d(2))  # a buffer that each forward pass moves
        seen.append(model.statistics.running_mean.clone())
        model.statistics(torch.full((3, 2), float(len(seen))))
        value = autograd(model, loss, batch)
        return value * float("nan") if len(seen) == 5 else value

    with pytest.raises(NonFiniteError):
        run_training(new_run(config), engine=engine)
    kept = load_file(newest_checkpoint(tmp_path / "runs" / "tiny") / "model.safetensors")

    assert torch.equal(seen[4], kept["statistics.running_mean"])
