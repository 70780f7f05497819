"""transformers' config.json and our ModelConfig: which of one can be said as the other. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from chainrule.errors import ConfigError
from chainrule.train.config_model import FAMILIES, Family, ModelConfig

# Our names of activations: those that transformers has for them, the one we write first.
ACTIVATIONS = MappingProxyType(
    {
        "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh"),
        "gelu": ("gelu",),
        "silu": ("silu", "swish"),
        "relu": ("relu",),
        "tanh": ("tanh",),
        "sigmoid": ("sigmoid",),
    }
)
# What our models never do, and the value that says so.
ABSENT: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "gpt2": MappingProxyType(
            {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
        ),
        "llama": MappingProxyType({"rope_scaling": None}),
    }
)


def to_theirs(model: ModelConfig, vocabulary: int, mlp_width: int, end: int) -> dict[str, Any]:
    """config.json of a model. Raises ConfigError if neither GPT-2 nor Llama is built like that."""
    model = model.resolved()
    family = representable(model)
    shared = {
        "architectures": ["GPT2LMHeadModel" if family == "gpt2" else "LlamaForCausalLM"],
        "model_type": family,
        "vocab_size": vocabulary,
        "tie_word_embeddings": model.tied,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    return shared | (_gpt2(model, mlp_width) if family == "gpt2" else _llama(model, mlp_width))


def _gpt2(model: ModelConfig, mlp_width: int) -> dict[str, Any]:
    return {
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_embd": model.hidden,
        "n_inner": mlp_width,
        "n_positions": model.context,
        "activation_function": ACTIVATIONS[model.activation][0],
        "layer_norm_epsilon": model.epsilon,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.dropout,
    }


def _llama(model: ModelConfig, mlp_width: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.key_value_heads or model.heads,
        "hidden_size": model.hidden,
        "intermediate_size": mlp_width,
        "max_position_embeddings": model.context,
        "hidden_act": ACTIVATIONS[model.activation][0],
        "rms_norm_eps": model.epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
        "attention_bias": model.bias == "yes",
        "mlp_bias": model.bias == "yes",
        "attention_dropout": model.dropout,
    }


def representable(model: ModelConfig) -> Family:
    """The family whose transformers class computes what this (resolved) model does."""
    differing = {}
    for family, parts in FAMILIES.items():
        wanted = {name: parts[name] for name in ("positions", "norm", "mlp")}
        if family == "gpt2" and model.key_value_heads != model.heads:
            wanted["key_value_heads"] = 0
        differing[family] = [
            f"model.{name} is {getattr(model, name)!r}, not {value!r}"
            for name, value in wanted.items()
            if getattr(model, name) != value
        ]
        if not differing[family]:
            return family
    raise ConfigError(
        "transformers has no class for this model: "
        + "; ".join(f"it is no {family} as {', '.join(reasons)}" for family, reasons in differing.items())
    )


def to_ours(settings: Mapping[str, Any], where: str) -> tuple[ModelConfig, int]:
    """The model that a config.json describes, and its vocabulary. Raises ConfigError, naming what we do not have."""
    family = settings.get("model_type")
    if family not in ("gpt2", "llama"):
        raise ConfigError(f"{where}: model_type is {family!r}; gpt2 and llama can be read")
    for name, value in ABSENT[family].items():
        if settings.get(name, value) != value:
            raise ConfigError(f"{where}: {name} is {settings[name]!r}; only {value!r} can be represented")
    try:
        return (_from_gpt2 if family == "gpt2" else _from_llama)(settings, where), int(settings["vocab_size"])
    except KeyError as missing:
        raise ConfigError(f"{where}: {missing} is missing") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} is damaged: {error}") from None


def _from_gpt2(settings: Mapping[str, Any], where: str) -> ModelConfig:
    return ModelConfig(
        family="gpt2",
        layers=settings["n_layer"],
        heads=settings["n_head"],
        hidden=settings["n_embd"],
        mlp_width=settings.get("n_inner") or 4 * settings["n_embd"],
        context=settings["n_positions"],
        activation=_activation(settings.get("activation_function", "gelu_new"), where),
        epsilon=settings.get("layer_norm_epsilon", 1e-5),
        tied=settings.get("tie_word_embeddings", True),
    ).resolved()


def _from_llama(settings: Mapping[str, Any], where: str) -> ModelConfig:
    heads, hidden = settings["num_attention_heads"], settings["hidden_size"]
    if (settings.get("head_dim") or hidden // heads) * heads != hidden:
        raise ConfigError(f"{where}: head_dim is {settings['head_dim']}; hidden_size / num_attention_heads is expected")
    biases = {settings.get(name, False) for name in ("attention_bias", "mlp_bias")}
    if len(biases) > 1:
        raise ConfigError(f"{where}: attention_bias and mlp_bias differ; both or neither can be represented")
    return ModelConfig(
        family="llama",
        layers=settings["num_hidden_layers"],
        heads=heads,
        key_value_heads=0 if settings.get("num_key_value_heads", heads) == heads else settings["num_key_value_heads"],
        hidden=hidden,
        mlp_width=settings["intermediate_size"],
        context=settings["max_position_embeddings"],
        rotary_base=_rotary_base(settings, where),
        activation=_activation(settings.get("hidden_act", "silu"), where),
        epsilon=settings.get("rms_norm_eps", 1e-6),
        bias="yes" if biases == {True} else "no",
        tied=settings.get("tie_word_embeddings", False),
    ).resolved()


def _rotary_base(settings: Mapping[str, Any], where: str) -> float:
    """rope_theta, in the place of transformers 5 or 4; scaled angles are refused."""
    rope = settings.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"{where}: rope_type is {rope['rope_type']!r}; only 'default' can be represented")
    return float(rope.get("rope_theta", settings.get("rope_theta", 10_000.0)))


def _activation(name: str, where: str) -> Any:
    for ours, theirs in ACTIVATIONS.items():
        if name in theirs:
            return ours
    known = ", ".join(name for names in ACTIVATIONS.values() for name in names)
    raise ConfigError(f"{where}: the activation is {name!r}; known are {known}")
