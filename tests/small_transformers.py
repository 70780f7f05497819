"""Every kind of Transformer that a configuration can ask for, tiny."""

import torch

from chainrule.models import Transformer
from chainrule.models.activations import ACTIVATIONS
from chainrule.models.initialisation import INITIALISERS
from chainrule.models.normalization import rms_norm

LLAMA = {
    "norm": rms_norm,
    "positions": "rotary",
    "gated": True,
    "activation": ACTIVATIONS["silu"],
    "bias": False,
    "key_value_heads": 2,
    "tied": False,
}
VARIANTS = {
    "gpt2": {},
    "llama": LLAMA,
    "llama, tied, with biases": LLAMA | {"tied": True, "bias": True},
    "one key-value head": {"key_value_heads": 1},
    "sinusoidal": {"positions": "sinusoidal"},
    "no positions": {"positions": "none", "bias": False},
    "gated gelu": {"gated": True, "activation": ACTIVATIONS["gelu"], "mlp_width": 10},
    **{f"mlp with {name}": {"activation": ACTIVATIONS[name]} for name in ("sigmoid", "tanh", "relu", "silu")},
    **{f"{name} initialisation": {"initialiser": INITIALISERS[name]} for name in ("xavier", "he", "orthogonal")},
}


def make(**changes):
    """A model of two layers, 4 heads, 16 hidden, context 6, for 11 tokens; seed 0."""
    sizes = {"vocabulary": 11, "layers": 2, "heads": 4, "hidden": 16, "context": 6} | changes
    return Transformer(**sizes, generator=torch.Generator().manual_seed(0))


def batch(rows=2, length=6, documents=None):
    """Random tokens and targets; `documents` numbers the tokens of each row."""
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (rows, length + 1), generator=draw)
    packed = {} if documents is None else {"documents": torch.tensor([documents] * rows)}
    return {"tokens": tokens[:, :-1].contiguous(), "targets": tokens[:, 1:].contiguous(), **packed}
