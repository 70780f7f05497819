"""Keys and values of tokens read before, so that the next token costs one query a layer instead of T.

B batch, G key-value heads, S tokens so far, K width of a head
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """What one attention layer has seen."""

    def __init__(self) -> None:
        self.keys_BGSK: Tensor | None = None
        self.values_BGSK: Tensor | None = None

    def extend(self, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if self.keys_BGSK is not None and self.values_BGSK is not None:
            k_BGTK = torch.cat([self.keys_BGSK, k_BGTK], dim=2)
            v_BGTK = torch.cat([self.values_BGSK, v_BGTK], dim=2)
        self.keys_BGSK, self.values_BGSK = k_BGTK, v_BGTK
        return k_BGTK, v_BGTK


class Cache:
    """The caches of all layers of a model; hand it to each call, with the tokens that it has not read yet."""

    def __init__(self) -> None:
        self._layers: list[LayerCache] = []

    def layer(self, number: int) -> LayerCache:
        """The cache of one layer; layers are met in their order."""
        if number == len(self._layers):
            self._layers.append(LayerCache())
        return self._layers[number]

    @property
    def length(self) -> int:
        """Tokens read so far."""
        keys = self._layers[0].keys_BGSK if self._layers else None
        return 0 if keys is None else keys.shape[2]
