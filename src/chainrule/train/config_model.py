"""The Transformer of a run, as frozen data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from chainrule.train.config_rules import require, require_least

Family = Literal["gpt2", "llama"]


@dataclass(frozen=True)
class ModelConfig:
    """The Transformer: L layers of N heads, H hidden. `auto` = as in the family."""

    family: Family = "gpt2"
    """gpt2: layer norm, learned positions, plain MLP, GELU, biases; llama: RMS norm, rotary, gated MLP, SiLU, none."""
    pretrained: str = ""
    """Folder in Hugging Face's format (GPT-2, Llama) to go on from; it sets all of the below but `dropout`."""
    layers: int = 4
    """Transformer blocks, L."""
    heads: int = 4
    """Attention heads in each block, N; divides `hidden`."""
    key_value_heads: int = 0
    """Heads of keys and values, each shared by as many of the N; 0 = N."""
    hidden: int = 128
    """Width of the residual stream, H."""
    mlp_width: int = 0
    """Width inside the MLP; 0 = 4 H, in a gated one 8/3 H rounded up to a multiple of 8."""
    context: int = 128
    """Tokens that the model sees at once, T."""
    positions: Literal["auto", "learned", "sinusoidal", "rotary", "none"] = "auto"
    """How a token knows its place."""
    rotary_base: float = 10_000.0
    """Rotary positions turn plane i by place / base^(2i / width of a head)."""
    norm: Literal["auto", "layer", "rms"] = "auto"
    """Layer norm or RMS norm."""
    epsilon: float = 1e-5
    """Added to the variance in a norm."""
    mlp: Literal["auto", "plain", "gated"] = "auto"
    """Two linear maps, or three of which one gates another (SwiGLU with SiLU)."""
    activation: Literal["auto", "gelu_tanh", "gelu", "silu", "relu", "tanh", "sigmoid"] = "auto"
    """The function inside the MLP; gelu_tanh is GPT-2's approximation of gelu."""
    bias: Literal["auto", "yes", "no"] = "auto"
    """Whether linear maps and layer norms have biases."""
    tied: bool = True
    """Use the token embedding as the output head's weight, too."""
    initialisation: Literal["gpt2", "xavier", "he", "orthogonal"] = "gpt2"
    """How weight matrices begin."""
    dropout: float = 0.0
    """Probability that an activation is dropped in training, 0 to 1."""

    def __post_init__(self) -> None:
        require_least(self, "model", 1, "layers", "heads", "hidden")
        require_least(self, "model", 0, "key_value_heads", "mlp_width")
        for name in ("rotary_base", "epsilon"):
            require(getattr(self, name) > 0, f"model.{name} is {getattr(self, name)}; it must be above 0")
        require(self.context >= 2, f"model.context is {self.context} tokens; it must be 2 or more")
        require(
            self.hidden % self.heads == 0,
            f"model.hidden is {self.hidden} and model.heads is {self.heads}: hidden must be a multiple of heads, "
            f"for instance {self.heads * max(1, round(self.hidden / self.heads))}",
        )
        require(
            self.heads % (self.key_value_heads or 1) == 0,
            f"model.heads is {self.heads} and model.key_value_heads is {self.key_value_heads}: heads must be a multiple",
        )
        require(
            self._turns_pairs(),
            f"a head is {self.hidden // self.heads} wide (model.hidden / model.heads); rotary positions need an even width",
        )
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; a probability from 0 up to below 1 is needed")

    def _turns_pairs(self) -> bool:
        rotary = self.positions == "rotary" or (self.positions == "auto" and self.family == "llama")
        return not rotary or self.hidden // self.heads % 2 == 0

    def resolved(self) -> ModelConfig:
        """The same with nothing left to the family."""
        choices = {name: value for name, value in FAMILIES[self.family].items() if getattr(self, name) == "auto"}
        return replace(self, **choices)


FAMILIES: MappingProxyType[Family, MappingProxyType[str, Any]] = MappingProxyType(
    {
        "gpt2": MappingProxyType(
            {"positions": "learned", "norm": "layer", "mlp": "plain", "activation": "gelu_tanh", "bias": "yes"}
        ),
        "llama": MappingProxyType(
            {"positions": "rotary", "norm": "rms", "mlp": "gated", "activation": "silu", "bias": "no"}
        ),
    }
)
