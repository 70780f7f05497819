"""A model exported to Hugging Face's format gives transformers the same logits; one of theirs gives us the same."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from chainrule.data.tokenizer import byte_tokenizer, encoded
from chainrule.errors import ConfigError
from chainrule.train.config import ModelConfig, SampleConfig
from chainrule.train.huggingface.folder import export
from chainrule.train.sample import continuation
from chainrule.train.tasks.text_model import build_model, pretrained_model, settled_model

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")
pytestmark = pytest.mark.hf

# Of logits of size 1 to 10, through two layers: some ten units of float32 (6e-8) and of float64 (1e-16), on other kernels.
FLOAT32, FLOAT64 = {"rtol": 1e-5, "atol": 1e-5}, {"rtol": 1e-12, "atol": 1e-12}
SMALL = {"layers": 2, "heads": 4, "hidden": 16, "context": 24}
CONFIGS = {
    "gpt2": ModelConfig(**SMALL),
    "gpt2 without biases, untied, relu": ModelConfig(**SMALL, bias="no", tied=False, activation="relu", mlp_width=20),
    "llama": ModelConfig(**SMALL, family="llama", key_value_heads=2, tied=False, epsilon=1e-6, rotary_base=500.0),
    "llama with biases, tied, gelu": ModelConfig(**SMALL, family="llama", bias="yes", activation="gelu"),
}


def trained(config, vocabulary=257):
    """A model whose weights, biases and norms included, are all far from their initial values."""
    model = build_model(config, vocabulary, seed=0)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def exported(config, folder):
    model = trained(config)
    export(folder, config, dict(model.named_parameters()), byte_tokenizer())
    return model


def loaded(folder):
    """transformers' model of a folder, and what it had to say about names."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)


def in_true_float64(theirs):
    """transformers computes Llama's RMS norm in float32 whatever the model's dtype: torch's norm does not."""
    for module in list(theirs.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(module, name, norm)
    return theirs.double()


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_loads_an_exported_model_without_a_remark_and_gives_its_logits(name, tmp_path):
    ours = exported(CONFIGS[name], tmp_path / "model")
    theirs, remarks = loaded(tmp_path / "model")
    tokens_BT = torch.randint(257, (2, 24))

    assert not any(remarks.values()), remarks
    torch.testing.assert_close(ours(tokens_BT), theirs(tokens_BT).logits, **FLOAT32)
    expected = in_true_float64(theirs)(tokens_BT).logits
    torch.testing.assert_close(expected, ours.double()(tokens_BT), **FLOAT64)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_both_write_the_same_text(name, tmp_path):
    ours = exported(CONFIGS[name], tmp_path / "model")
    theirs = loaded(tmp_path / "model")[0]
    settings = SampleConfig(tokens=16, temperature=0.0)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")("Once é", return_tensors="pt")
    written = theirs.generate(**tokens, max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=256)

    assert encoded(byte_tokenizer(), "Once é") == tokens["input_ids"][0].tolist()
    expected = written[0, tokens["input_ids"].shape[1] :].tolist()
    assert expected == continuation(ours, tokens["input_ids"][0].tolist(), 24, settings, seed=0)


def test_the_tokenizer_is_the_same_and_knows_its_mark(tmp_path):
    exported(CONFIGS["gpt2"], tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "def f(x):\n    return 'é漢' + x"

    assert list(text.encode()) == theirs(text)["input_ids"]
    assert text == theirs.decode(theirs(text)["input_ids"])
    assert (256, 24) == (theirs.eos_token_id, theirs.model_max_length)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_exported_model_comes_back_bit_for_bit(name, tmp_path):
    ours = exported(CONFIGS[name], tmp_path / "model")
    config = settled_model(ModelConfig(pretrained=str(tmp_path / "model")))
    back = pretrained_model(config, 257).eval()
    tokens_BT = torch.randint(257, (2, 24))

    assert torch.equal(ours(tokens_BT), back(tokens_BT))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_that_transformers_saved_is_read(family, tmp_path):
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_layer=2, n_head=2, n_embd=12, n_positions=16, vocab_size=300, bos_token_id=0, eos_token_id=0
        )
    else:
        config = transformers.LlamaConfig(
            num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=16, intermediate_size=24,
            max_position_embeddings=16, vocab_size=300, rms_norm_eps=1e-5,
        )  # fmt: skip
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="10KB")  # in many files, with an index
    ours = pretrained_model(settled_model(ModelConfig(pretrained=str(tmp_path / "theirs"))), 257).eval()
    tokens_BT = torch.randint(300, (2, 16))

    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    torch.testing.assert_close(theirs(tokens_BT).logits, ours(tokens_BT), **FLOAT32)


def test_a_model_may_see_less_than_it_could(tmp_path):
    ours = exported(CONFIGS["gpt2"], tmp_path / "model")
    short = pretrained_model(settled_model(ModelConfig(pretrained=str(tmp_path / "model"), context=8)), 257).eval()
    tokens_BT = torch.randint(257, (2, 8))

    assert 8 == short.context
    assert torch.equal(ours(tokens_BT), short(tokens_BT))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": "sinusoidal"}, "transformers has no class for this model: it is no gpt2 as model.positions is"),
        ({"key_value_heads": 2}, "it is no gpt2 as model.key_value_heads is 2, not 0; it is no llama as"),
        ({"norm": "rms"}, "it is no gpt2 as model.norm is 'rms', not 'layer'"),
    ],
)
def test_what_transformers_has_no_class_for_is_refused(change, words, tmp_path):
    config = replace(CONFIGS["gpt2"], **change)
    with pytest.raises(ConfigError) as refused:
        export(tmp_path / "x", config, dict(trained(config).named_parameters()), byte_tokenizer())

    assert words in str(refused.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gpt2", {"model_type": "bert"}, "model_type is 'bert'; gpt2 and llama can be read"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True; only False"),
        ("gpt2", {"activation_function": "mish"}, "the activation is 'mish'; known are gelu_new"),
        ("gpt2", {"n_layer": "two"}, "is damaged"),
        ("gpt2", {"n_layer": 3}, "blocks.2.attention_norm.weight is missing"),
        ("gpt2", {"vocab_size": 300}, "tokens.weight is (257, 16), expected (300, 16)"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope_type is 'llama3'"),
        ("llama", {"head_dim": 8}, "head_dim is 8; hidden_size / num_attention_heads is expected"),
        ("llama", {"mlp_bias": True}, "attention_bias and mlp_bias differ"),
        ("llama", {"tie_word_embeddings": True, "hidden_act": "relu6"}, "the activation is 'relu6'"),
    ],
)
def test_a_folder_that_cannot_be_represented_is_refused(name, change, words, tmp_path):
    exported(CONFIGS[name], tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError) as refused:
        pretrained_model(settled_model(ModelConfig(pretrained=str(tmp_path / "model"))), 257)

    assert words in str(refused.value)


def test_damaged_or_missing_files_are_named(tmp_path):
    exported(CONFIGS["gpt2"], folder := tmp_path / "model")
    weights, config = (folder / "model.safetensors").read_bytes(), settled_model(ModelConfig(pretrained=str(folder)))
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ConfigError, match=r"model.safetensors cannot be read: .*safetensors format are expected"):
        pretrained_model(config, 257)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"index.json is damaged: it has no weight_map"):
        pretrained_model(config, 257)
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json cannot be read"):
        settled_model(ModelConfig(pretrained=str(folder)))
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"is no folder of a model in Hugging Face's format: it has no config.json"):
        settled_model(ModelConfig(pretrained=str(folder)))


def test_settings_that_contradict_the_folder_are_refused(tmp_path):
    exported(CONFIGS["gpt2"], folder := tmp_path / "model")
    with pytest.raises(ConfigError, match=r"holds another model: model.layers is 3, not 2; model.context is 99, more"):
        settled_model(ModelConfig(pretrained=str(folder), layers=3, context=99))
    with pytest.raises(ConfigError, match="has a vocabulary of 257 tokens and the tokenizer one of 300"):
        pretrained_model(settled_model(ModelConfig(pretrained=str(folder))), 300)
    with pytest.raises(ConfigError, match="exists: take another folder"):
        exported(CONFIGS["gpt2"], folder)
