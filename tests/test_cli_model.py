"""`chainrule sample` and `chainrule export`, as a user types them."""

import json

import pytest

from chainrule import cli
from chainrule.train.run import run_training
from chainrule.train.run_folder import new_run
from small_runs import tiny_config


@pytest.fixture
def run(tmp_path):
    run_training(new_run(tiny_config(tmp_path)))
    return tmp_path / "runs" / "tiny"


def test_sample_continues_a_prompt_alike_for_the_same_seed(run, capsys):
    printed = []
    for seed in ("1", "1", "2"):
        assert 0 == cli.run(["sample", str(run), "--prompt", "the cat", "--tokens", "9", "--seed", seed])
        printed.append(capsys.readouterr().out)

    assert printed[0].startswith("the cat")
    assert len(printed[0]) > len("the cat\n")
    assert printed[0] == printed[1] != printed[2]


def test_sample_takes_a_checkpoint_and_begins_a_text_of_its_own(run, capsys):
    assert 0 == cli.run(["sample", str(run / "checkpoints" / "step-000020"), "--tokens", "9"])

    assert capsys.readouterr().out.strip()


def test_export_makes_the_folder_and_says_how_to_load_it(run, tmp_path, capsys):
    assert 0 == cli.run(["export", str(run), str(tmp_path / "model")])
    said = capsys.readouterr().out

    assert f"AutoModelForCausalLM.from_pretrained('{tmp_path / 'model'}')" in said
    assert 1 == len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}), "one is closed to other users"
    assert "gpt2" == json.loads((tmp_path / "model" / "config.json").read_text())["model_type"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "nowhere"], "nowhere is no run folder: it has no config.toml"),
        (["sample", "RUN", "--tokens", "0"], "tokens is 0; it must be 1 or more"),
        (["sample", "RUN", "--top-p", "2"], "sample.top_p is 2.0; a probability above 0, up to 1, is needed"),
        (["export", "RUN", "RUN"], "exists: take another folder, or remove it first"),
    ],
)
def test_misuse_ends_with_code_2_and_what_to_do(run, arguments, words, capsys):
    assert 2 == cli.run([str(run) if argument == "RUN" else argument for argument in arguments])

    assert words in capsys.readouterr().err


def test_a_misspelt_run_has_the_nearest_one_suggested(run, capsys):
    assert 2 == cli.run(["sample", str(run)[:-1]])
    assert f"it has no config.toml; did you mean {run}?" in capsys.readouterr().err


def test_a_run_whose_checkpoint_is_damaged_is_refused(run, capsys):
    (run / "checkpoints" / "step-000020" / "model.safetensors").write_bytes(b"nothing")

    assert 2 == cli.run(["sample", str(run)])
    assert "model.safetensors is damaged" in capsys.readouterr().err
