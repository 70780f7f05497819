"""A run of text takes a tokenizer, token ids or a pretrained model of the user's; what has changed since is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chainrule.data.tokenizer import byte_tokenizer, encoded
from chainrule.errors import CheckpointError, ConfigError, DataError
from chainrule.train.checkpoint import newest_checkpoint
from chainrule.train.events import read_steps
from chainrule.train.huggingface.folder import export
from chainrule.train.language_model import load_language_model
from chainrule.train.plan import plan_run
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run, open_run
from small_runs import tiny_config

TEXT = "the cat sat on a mat and the dog ran\n" * 60


def config_with(folder, **data):
    config = tiny_config(folder, steps=3)
    return replace(config, data=replace(config.data, **data))


def losses(folder, name="tiny"):
    return [record.loss for record in read_steps(folder / "runs" / name)]


def test_the_bytes_are_a_tokenizer_that_is_kept_with_the_run(tmp_path):
    results = run_training(new_run(config_with(tmp_path, tokenizer="bytes")))

    assert 1.0 == pytest.approx(results.data["bytes_per_token"], rel=0.01)
    assert b"ab" == bytes(encoded(load_language_model(tmp_path / "runs" / "tiny").tokenizer, "ab"))


def test_a_tokenizer_of_the_users_is_used_as_it_is(tmp_path):
    (tmp_path / "own.json").write_text(byte_tokenizer().to_str())
    run_training(new_run(config_with(tmp_path, tokenizer="bytes")))
    own = replace(config_with(tmp_path, tokenizer=str(tmp_path / "own.json")), name="own")
    run_training(new_run(own))

    assert losses(tmp_path) == losses(tmp_path, "own")


@pytest.mark.parametrize("content", ["{", "", "[1]", '{"model": 3}'])
def test_a_damaged_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(DataError, match=r"own.json cannot be read as a tokenizer"):
        run_training(new_run(config_with(tmp_path, tokenizer=str(tmp_path / "own.json"))))


def test_token_ids_of_the_users_train_as_their_text_does(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text(TEXT)
    text = replace(config_with(tmp_path, tokenizer="bytes"), text=(str(tmp_path / "one" / "a.txt"),))
    run_training(new_run(text))
    kept = tmp_path / "runs" / "tiny" / "data"
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "train.bin").write_bytes((kept / "training.bin").read_bytes())
    (folder / "val.bin").write_bytes((kept / "validation.bin").read_bytes())
    results = run_training(new_run(replace(text, name="ids", data=replace(text.data, tokens=str(folder)))))

    assert losses(tmp_path) == losses(tmp_path, "ids")
    assert not list((tmp_path / "runs" / "ids" / "data").glob("*.bin"))
    assert f"tokens of {folder}" == results.data["source"]


def test_one_file_of_ids_is_split_and_must_stay_as_it_was(tmp_path):
    np.save(tmp_path / "ids.npy", np.frombuffer(TEXT.encode(), np.uint8))
    config = config_with(tmp_path, tokenizer="bytes", tokens=str(tmp_path / "ids.npy"))
    results = run_training(new_run(config))
    run_training(open_run(tmp_path / "runs" / "tiny"))

    assert (len(TEXT) * 9 // 10, len(TEXT)) == (
        results.data["training_tokens"], results.data["training_bytes"] + results.data["validation_bytes"]
    )  # fmt: skip
    ids = np.load(tmp_path / "ids.npy")
    np.save(tmp_path / "ids.npy", np.where(np.arange(len(ids)) == 7, 65, ids))
    with pytest.raises(CheckpointError, match=r"ids.npy has changed since the run began; start a new run"):
        run_training(open_run(tmp_path / "runs" / "tiny"))
    (tmp_path / "ids.npy").unlink()
    with pytest.raises(CheckpointError, match=r"ids.npy cannot be read"):
        run_training(open_run(tmp_path / "runs" / "tiny"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"tokens": "no.bin", "tokenizer": "bytes"}, "no.bin cannot be read: No such file"),
        ({"tokens": "few.npy", "tokenizer": "bytes"}, "holds 1 token ids: too few to split"),
        ({"tokens": "few.npy"}, "say which tokenizer made them, by --data.tokenizer"),
    ],
)
def test_ids_that_cannot_be_used_are_refused(tmp_path, data, words):
    np.save(tmp_path / "few.npy", np.zeros(1, np.uint8))
    data = data | {"tokens": str(tmp_path / data["tokens"])}
    with pytest.raises(DataError) as refused:
        run_training(new_run(config_with(tmp_path, **data)))

    assert words in str(refused.value)
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.parametrize("file", ["training.bin", "facts.json", "tokens.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_tokens_of_a_run_are_refused_by_name(tmp_path, file, damage):
    run_training(new_run(config_with(tmp_path)))
    path = tmp_path / "runs" / "tiny" / "data" / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-2] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(CheckpointError, match=rf"the data of .*tiny is damaged: .*{file}"):
        run_training(open_run(tmp_path / "runs" / "tiny"))


def test_a_pretrained_model_goes_on_training_and_its_run_can_be_resumed(tmp_path):
    first = replace(config_with(tmp_path, tokenizer="bytes"), steps=40)
    run_training(new_run(first))
    before = load_language_model(tmp_path / "runs" / "tiny")
    export(tmp_path / "model", before.config.model, dict(before.model.named_parameters()), before.tokenizer)
    model = replace(first.model, layers=4, heads=4, hidden=128, context=128, pretrained=str(tmp_path / "model"))
    onward = replace(config_with(tmp_path), name="onward", model=model)
    run = new_run(onward)
    run_training(run)
    planned = plan_run(onward)
    shutil.rmtree(tmp_path / "model")  # its weights are in the run's checkpoint now
    run_training(open_run(tmp_path / "runs" / "onward"))

    assert sum(parameter.numel() for parameter in before.model.parameters()) == planned.parameters
    assert (2, 8, 0.1) == (run.config.model.layers, run.config.model.context, run.config.model.dropout)
    assert losses(tmp_path, "onward")[0] < losses(tmp_path)[0] - 0.3
    after = load_file(newest_checkpoint(tmp_path / "runs" / "onward") / "model.safetensors")
    assert not torch.equal(after["tokens.weight"], before.model.tokens.weight)


def test_a_folder_without_a_tokenizer_wants_one_named(tmp_path):
    model = load_language_model_of_a_run(tmp_path)
    export(tmp_path / "model", model.config.model, dict(model.model.named_parameters()), model.tokenizer)
    (tmp_path / "model" / "tokenizer.json").unlink()
    config = config_with(tmp_path)
    plain = replace(config.model, layers=4, heads=4, hidden=128, context=128, pretrained=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"has no tokenizer.json: name one with --data.tokenizer"):
        run_training(new_run(replace(config, name="other", model=plain)))


def load_language_model_of_a_run(folder):
    run_training(new_run(config_with(folder)))
    return load_language_model(folder / "runs" / "tiny")
