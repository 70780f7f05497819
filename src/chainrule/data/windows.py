"""A row of tokens cut into windows: what the model reads, and the same shifted by one, what it must predict.

    n tokens, T context; window i reads tokens i T ... i T + T - 1 and predicts i T + 1 ... i T + T

Every token is predicted once, but for the first of all and a rest shorter than a window at the end.

A packed window tells its documents apart. The end-of-text mark is a target of the document that it ends, and as an input
the beginning of the next one: that document's first token is predicted from the mark alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chainrule.data.token_file import TokenRow
from chainrule.errors import DataError


@dataclass(frozen=True)
class Windows:
    """Windows of `context` tokens in `tokens`; `len()` counts them. `end` is the mark by which they are packed, if so."""

    tokens: TokenRow
    context: int
    end: int | None = None

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.context)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The windows with their last target: (B, T + 1)."""
        offsets = indices[:, None] * self.context + np.arange(self.context + 1)
        rows: NDArray[np.int64] = self.tokens[offsets].astype(np.int64)
        return rows

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> dict[str, Tensor]:
        """{"tokens": (B, T), "targets": (B, T)}, int64; packed also "documents" (B, T), numbered in each row."""
        rows = torch.from_numpy(self.rows(indices)).to(device)
        batch = {"tokens": rows[:, :-1].contiguous(), "targets": rows[:, 1:].contiguous()}
        if self.end is not None:
            batch["documents"] = (batch["tokens"] == self.end).cumsum(dim=1)
        return batch


def require_windows(windows: Windows, needed: int, what: str) -> None:
    """Raise DataError if `windows` are fewer than `needed`."""
    if len(windows) < needed:
        raise DataError(
            f"the {what} text holds {len(windows.tokens):,} tokens, that is {len(windows)} windows of "
            f"{windows.context} tokens (model.context); {needed} needed: give more text, or lower "
            f"--model.context{' or --data.batch-size' if needed > 1 else ''}"
        )
