"""The real preflight of real runs: it proves the very objective that is trained, whatever the mode, and finds nothing wrong."""

from dataclasses import replace

import pytest

import chainrule as cr
from chainrule.train.config import ModelConfig, RegularisationConfig
from small_runs import tiny_config

MODES = {
    "llama, muon": lambda config: replace(
        config,
        model=ModelConfig(family="llama", layers=2, heads=2, key_value_heads=1, hidden=8, context=8),
        optimizer=replace(config.optimizer, name="muon"),
    ),
    "float16, lion": lambda config: replace(
        config, precision="float16", optimizer=replace(config.optimizer, name="lion", learning_rate=1e-3)
    ),
    "penalties": lambda config: replace(config, regularisation=RegularisationConfig(l1=1e-4, l2=1e-3)),
    "recomputed": lambda config: replace(config, loop=replace(config.loop, recompute=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_preflight_passes_and_the_run_ends(tmp_path, mode):
    config = tiny_config(tmp_path, steps=3)
    config = replace(config, loop=replace(config.loop, preflight=True, tensorboard="off"))
    results = cr.train(MODES[mode](config))

    assert "finished" == results.outcome
    assert "pass" == results.preflight["verdict"]
    assert [] == [finding for finding in results.preflight["findings"] if finding["severity"] == "error"]
