"""The same table, seed and batches trained by three engines that share no code: the loss curves coincide in float64."""

from pathlib import Path

import pytest

from chainrule.api import gradient_engine
from chainrule.train.events import read_steps
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from small_tables import table_config, write_mixed

GOALS = {"regression": "target", "binary": "class", "multi-class": "colour"}


def losses(gradient, folder, goal="regression", steps=12, **mlp):
    """Losses of the first steps of AdamW, gradients by the engine of this name."""
    config = table_config(
        folder,
        write_mixed(folder / "mixed.csv"),
        name=f"{gradient}-{goal}",
        gradient=gradient,
        precision="float64",
        steps=steps,
        table={"target": GOALS[goal], "batch_size": 8},
        mlp={"hidden": (3,), "activation": "tanh", **mlp},
    )
    results = run_training(new_run(config), engine=gradient_engine(gradient))
    return [record.loss for record in read_steps(Path(results.folder))]


@pytest.mark.parametrize("goal", GOALS)
def test_the_chain_rule_trains_a_table_as_autograd_does_to_1e_12(tmp_path, goal):
    expected = losses("autograd", tmp_path, goal)

    assert len(set(expected)) > 10
    assert expected == pytest.approx(losses("chain_rule", tmp_path, goal), rel=0, abs=1e-12)


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_so_it_does_with_each_norm_and_with_dropout(tmp_path, norm):
    one, two = (losses(name, tmp_path, norm=norm, dropout=0.3) for name in ("autograd", "chain_rule"))

    assert one == pytest.approx(two, rel=0, abs=1e-12)


def test_finite_differences_train_a_table_as_autograd_does_to_1e_9(tmp_path):
    one, two = (losses(name, tmp_path, steps=4) for name in ("autograd", "numerical"))

    assert one == pytest.approx(two, rel=0, abs=1e-9)
