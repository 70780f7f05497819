"""How a token knows its place: a vector that is added to it, or an angle by which queries and keys are turned.

T tokens, D width (hidden), K width of a head, p a position (0, 1, ...)

learned      a vector a position, trained: nn.Embedding                      GPT-2
sinusoidal   sin(p / 10000^(2i / D)), cos(p / 10000^(2i / D)), fixed         Vaswani et al. 2017, section 3.5
rotary       queries and keys turned by p / base^(2i / K) in K / 2 planes,   Su et al. 2021, "RoFormer", eq. 34
             so that their product depends on the distance alone
none         the causal mask alone tells places apart                        Kazemnejad et al. 2023
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Positions = Literal["learned", "sinusoidal", "rotary", "none"]


class SinusoidalPositions(nn.Module):
    """Waves of D / 2 lengths from 2 pi to 10000 · 2 pi: position numbers (..., T) to vectors (..., T, D)."""

    table: Tensor

    def __init__(self, context: int, hidden: int) -> None:
        super().__init__()
        angle_TI = _angles(context, hidden, base=10_000.0)
        table_TD = torch.stack([angle_TI.sin(), angle_TI.cos()], dim=-1).flatten(1)[:, :hidden]
        self.register_buffer("table", table_TD, persistent=False)

    def forward(self, position: Tensor) -> Tensor:
        """The vector of each position."""
        return self.table[position]


class RotaryPositions(nn.Module):
    """Cosine and sine of the angle of each plane: position numbers (..., T) to two tables (..., 1, T, K).

    Plane i is made of the entries i and i + K / 2 (as Hugging Face's Llama has it; the paper takes 2i and 2i + 1: the
    same up to the order of the query's and the key's outputs). Angles are computed in float32, as every Llama does.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, context: int, head_width: int, base: float) -> None:
        super().__init__()
        if head_width % 2:
            raise ValueError(f"a head is {head_width} wide; rotary positions turn pairs, so it must be even")
        angle_TK = _angles(context, head_width, base).repeat(1, 2)
        self.register_buffer("cos", angle_TK.cos(), persistent=False)
        self.register_buffer("sin", angle_TK.sin(), persistent=False)

    def forward(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of each position, alike for all heads."""
        return self.cos[position].unsqueeze(-3), self.sin[position].unsqueeze(-3)


def rotate(x_BNTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each plane (x_i, x_(i + K/2)) by its angle: (x_i cos - x_(i + K/2) sin, x_(i + K/2) cos + x_i sin)."""
    first, second = x_BNTK.chunk(2, dim=-1)
    return x_BNTK * cos + torch.cat([-second, first], dim=-1) * sin


def _angles(context: int, width: int, base: float) -> Tensor:
    """p / base^(2i / width) for all positions p and i < width / 2, float32: (T, width / 2)."""
    exponent_I = torch.arange(0, width, 2, dtype=torch.int64).float() / width
    return torch.arange(context).float()[:, None] * (1.0 / base**exponent_I)
