"""Checkpoints hold all that the next step depends on; a damaged one is named, and an older good one offered."""

import json
import random
import shutil
from typing import get_args

import numpy as np
import pytest
import torch

from chainrule.errors import CheckpointError
from chainrule.models import Transformer
from chainrule.train import atomic
from chainrule.train.atomic import verify_folder, write_folder, write_text
from chainrule.train.checkpoint import (
    State,
    Trained,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    step_of,
)
from chainrule.train.config import OptimizerConfig
from chainrule.train.config_update import OptimizerName
from chainrule.train.optimizers import make_optimizers
from chainrule.train.precision import make_scaler
from chainrule.train.randomness import random_state, restore_random_state
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from small_runs import tiny_config


def make(name="adamw", tied=True):
    return with_optimizer(Transformer(vocabulary=7, layers=1, heads=1, hidden=4, context=4, tied=tied), name)


def with_optimizer(model, name="adamw"):
    scaler = make_scaler("float32", torch.device("cpu"))
    return Trained(model, make_optimizers(model, OptimizerConfig(name=name)), scaler)


def update(trained):
    trained.model.zero_grad()
    trained.model(torch.randint(7, (2, 4))).square().mean().backward()
    for optimizer in trained.optimizers:
        optimizer.step()


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize("tied", [True, False])
def test_weights_optimizer_and_random_states_come_back_bitwise(tmp_path, name, tied):
    trained = make(name, tied)
    update(trained)
    path = save_checkpoint(tmp_path, trained, State(step=1, samples=2, recent=[0.1 + 0.2]), {})
    update(trained)
    expected = (
        [parameter.clone() for parameter in trained.model.parameters()],
        torch.rand(3),
        np.random.rand(3),
        random.random(),
    )

    other = make(name, tied)
    state = load_checkpoint(path, other)
    update(other)

    assert State(step=1, samples=2, recent=[0.1 + 0.2]) == state
    assert all(torch.equal(a, b) for a, b in zip(expected[0], other.model.parameters(), strict=True))
    assert torch.equal(expected[1], torch.rand(3))
    assert expected[2].tolist() == np.random.rand(3).tolist()
    assert expected[3] == random.random()
    assert not tied or other.model.head.weight is other.model.tokens.weight


def test_a_normal_draw_that_was_half_used_comes_back():
    random.gauss(0, 1)
    np.random.randn(1)
    before = json.loads(json.dumps(random_state()))
    expected = random.gauss(0, 1), np.random.randn(3).tolist()
    restore_random_state(before)

    assert expected == (random.gauss(0, 1), np.random.randn(3).tolist())


def test_the_last_two_and_the_best_are_kept(tmp_path):
    trained = make()
    for step in range(1, 7):
        save_checkpoint(tmp_path, trained, State(step=step, best_step=2 if step > 1 else 1), {})

    assert [2, 5, 6] == [step_of(path) for path in checkpoints(tmp_path)]


def test_a_write_that_is_cut_short_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    trained = make()
    save_checkpoint(tmp_path, trained, State(step=1), {})

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, trained, State(step=2), {})
    monkeypatch.undo()

    assert 1 == step_of(newest_checkpoint(tmp_path))
    save_checkpoint(tmp_path, trained, State(step=3), {})
    assert ["step-000001", "step-000003"] == sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_every_damaged_or_missing_file_is_named_and_the_older_checkpoint_offered(tmp_path, file):
    trained = make()
    update(trained)
    for step in (1, 2):
        path = save_checkpoint(tmp_path, trained, State(step=step), {})
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"an older good one is there: chainrule train --resume .*step-000001"):
        newest_checkpoint(tmp_path)

    (path / file).unlink()
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        newest_checkpoint(tmp_path)


def test_the_offered_checkpoint_goes_on_to_the_same_end(tmp_path):
    results = run_training(new_run(tiny_config(tmp_path)))
    folder = tmp_path / "runs" / "tiny"
    older, newest = checkpoints(folder)[-2:]
    (newest / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged: its sha256"):
        open_run(folder)

    assert results.validation_loss == run_training(open_run(older)).validation_loss


def test_without_any_good_checkpoint_the_way_to_start_again_is_told(tmp_path):
    trained = make()
    path = save_checkpoint(tmp_path, trained, State(step=1), {})
    (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no older good one is there; to start this run again remove"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing(tmp_path):
    trained = make()
    path = save_checkpoint(tmp_path, trained, State(step=1), {})
    other = Transformer(vocabulary=8, layers=1, heads=1, hidden=4, context=4)
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_checkpoint(path, with_optimizer(other))

    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    run_training(new_run(tiny_config(tmp_path)))
    folder = tmp_path / "runs" / "tiny"
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process trains in"):
            run_training(open_run(folder))


def test_damaged_data_of_a_run_is_refused(tmp_path):
    run_training(new_run(tiny_config(tmp_path)))
    folder = tmp_path / "runs" / "tiny"
    (folder / "data" / "training.bin").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"the data of .*tiny is damaged"):
        run_training(open_run(folder))


def test_a_run_can_be_resumed_when_its_text_is_gone(tmp_path):
    results = run_training(new_run(tiny_config(tmp_path)))
    shutil.rmtree(tmp_path / "text")

    assert results.validation_loss == run_training(open_run(tmp_path / "runs" / "tiny")).validation_loss


def test_a_folder_is_verified_file_by_file(tmp_path):
    write_folder(tmp_path / "a", {"one": lambda path: write_text(path, "1"), "two": lambda path: write_text(path, "2")})
    verify_folder(tmp_path / "a")
    (tmp_path / "a" / "two").unlink()
    with pytest.raises(CheckpointError, match=r"two is missing"):
        verify_folder(tmp_path / "a")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    trained = make()
    with pytest.raises(CheckpointError, match=r"step-000001 cannot be written: .*; what was saved before is untouched"):
        save_checkpoint(tmp_path, trained, State(step=1), {})
