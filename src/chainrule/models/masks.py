"""What a token may attend to: not the future, and in a packed row not another document.

B batch, T queries, S keys (T, or T and those in the cache), True = blocked
"""

from __future__ import annotations

import torch
from torch import Tensor


def future(queries: int, keys: int, device: torch.device) -> Tensor:
    """(T, S): the keys after each query; the queries are the last of the keys."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)


def future_or_foreign(documents_BT: Tensor) -> Tensor:
    """(B, T, T): the keys after each query, and those of another document. documents_BT numbers each token's document."""
    foreign_BTT = documents_BT[:, None, :] != documents_BT[:, :, None]
    return foreign_BTT | future(documents_BT.shape[1], documents_BT.shape[1], documents_BT.device)


def positions_within(blocked_BTT: Tensor) -> Tensor:
    """(B, T): a token's place in its document is the number of other tokens that it sees."""
    return (~blocked_BTT).sum(dim=-1) - 1
