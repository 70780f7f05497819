"""The configuration: wrong values are refused where they are made, files are read with suggestions and written back."""

import subprocess
import sys
import tomllib

import pytest

from chainrule.errors import ConfigError
from chainrule.train.config import (
    DataConfig,
    LoopConfig,
    ModelConfig,
    OptimizerConfig,
    SampleConfig,
    ScheduleConfig,
    TrainConfig,
)
from chainrule.train.run_folder import as_tables
from chainrule.train.settings import config_from, leaves, load_config, origins, to_toml


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(layers=0), "model.layers is 0; it must be 1 or more"),
        (lambda: ModelConfig(heads=5, hidden=192), "hidden must be a multiple of heads, for instance 190"),
        (lambda: ModelConfig(dropout=1.0), "model.dropout is 1.0"),
        (lambda: ModelConfig(context=1), "model.context is 1 tokens"),
        (lambda: ModelConfig(key_value_heads=3), "model.heads is 4 and model.key_value_heads is 3"),
        (lambda: ModelConfig(family="llama", hidden=12), "a head is 3 wide (model.hidden / model.heads); rotary"),
        (lambda: ModelConfig(epsilon=0.0), "model.epsilon is 0.0; it must be above 0"),
        (lambda: SampleConfig(top_p=0.0), "sample.top_p is 0.0; a probability above 0, up to 1, is needed"),
        (lambda: DataConfig(vocabulary=200), "data.vocabulary is 200; 256 bytes and 1 mark need 257"),
        (lambda: DataConfig(validation_fraction=0.0), "data.validation_fraction is 0.0"),
        (lambda: DataConfig(batch_size=0), "data.batch_size is 0"),
        (lambda: OptimizerConfig(learning_rate=0.0), "optimizer.learning_rate is 0.0"),
        (lambda: OptimizerConfig(beta2=1.0), "optimizer.beta2 is 1.0"),
        (lambda: ScheduleConfig(final_fraction=2.0), "schedule.final_fraction is 2.0"),
        (lambda: LoopConfig(evaluate_every=-1), "loop.evaluate_every is -1"),
        (lambda: SampleConfig(temperature=-1.0), "sample.temperature is -1.0"),
        (lambda: TrainConfig(steps=0), "steps is 0"),
        (lambda: TrainConfig(name="a/b"), "name is 'a/b'; it is one folder's name"),
        (lambda: TrainConfig(gradient="chain_rule", precision="bfloat16"), "computes in float32 or float64"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(make, words):
    with pytest.raises(ConfigError) as refused:
        make()

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model]\nlayer = 3", "run.toml: unknown key 'model.layer'; did you mean 'model.layers'?"),
        ("learning_rate = 1.0", "unknown key 'learning_rate'; did you mean 'optimizer.learning_rate'?"),
        ("[modle]\nlayers = 3", "unknown key 'modle'; "),
        ("steps = 'many'", "run.toml: steps is 'many'; expected a whole number"),
        ("steps = true", "steps is True; expected a whole number"),
        ("text = 'a.txt'", "text is 'a.txt'; a list of strings is expected"),
        ("method = 'batch'", "method is 'batch'; expected one of 'full-batch', 'stochastic', 'mini-batch'"),
        ("model = 3", "model is 3; a table [model] is expected"),
        ("[model]\nheads = 5", "run.toml: model.hidden is 128 and model.heads is 5"),
        ("steps = ", "run.toml is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_key_and_a_suggestion(tmp_path, text, words):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(tmp_path / "run.toml")

    assert words in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read: No such file"):
        load_config(tmp_path / "no.toml")


def test_data_in_the_place_of_settings_is_told_where_it_belongs(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\n1;2\n")
    with pytest.raises(
        ConfigError, match=r"t\.csv is not valid TOML: .*; text is given by --text, a table by --task table"
    ):
        load_config(tmp_path / "t.csv")


def test_an_integer_is_a_number():
    assert 1.0 == config_from({"optimizer": {"learning_rate": 1}}).optimizer.learning_rate


def test_what_is_written_can_be_read_again():
    config = TrainConfig(
        text=("a b.txt", 'quote " and \\'),
        name="é",
        steps=7,
        model=ModelConfig(tied=False, dropout=0.1),
        precision="float64",
    )

    assert config == config_from(tomllib.loads(to_toml(config)))
    assert config == config_from(as_tables(config))


def test_every_field_is_written_and_remarks_become_comments():
    text = to_toml(TrainConfig(), {"steps": "flag"})

    assert "steps = 1500  # flag" in text
    for name, _ in leaves(TrainConfig()):
        assert name.rpartition(".")[2] + " = " in text


def test_the_origin_of_each_value_is_known():
    settings = {"steps": 100, "model": {"layers": 2}}
    config = config_from({"steps": 900, "model": {"layers": 2}, "seed": 3})
    found = {name: origin for name, origin in origins(config, settings).items() if origin}

    assert {"steps": "flag", "model.layers": "file", "seed": "flag"} == found


def test_a_family_sets_what_is_not_given_and_nothing_else():
    llama = ModelConfig(family="llama", activation="relu", layers=3).resolved()

    assert ("rotary", "rms", "gated", "relu", "no", 3) == (
        llama.positions, llama.norm, llama.mlp, llama.activation, llama.bias, llama.layers
    )  # fmt: skip
    assert llama == llama.resolved()
    assert "auto" not in [value for _, value in leaves(ModelConfig().resolved())]


def test_the_configuration_imports_no_torch():
    code = "import sys, chainrule.train.settings, chainrule.cli; sys.exit('torch' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
