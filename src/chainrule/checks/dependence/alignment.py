"""Which token each logit is pulled to: read from dL/dlogits, so that it needs no knowledge of the loss's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from chainrule.checks.dependence.taps import Run

OFFSETS = (0, 1, 2)
ENOUGH = 0.9  # of the positions must be pulled to the token at one offset; measured: 1.0 healthy, 0.95 with two errors
FEWEST = 4  # positions at which the three tokens differ


@dataclass(frozen=True, eq=False)
class Alignment:
    """The inputs that a loss's targets come from.

    ids        the integer inputs, (B, T)
    fractions  offset k -> share of the scored positions t whose logits are pulled to ids[t + k]
    positions  number of positions that tell the offsets apart
    """

    ids: Tensor
    fractions: Mapping[int, float]
    positions: int

    @property
    def offset(self) -> int | None:
        """The offset of nearly all targets; None if there is none."""
        best = max(self.fractions, key=lambda k: self.fractions[k])
        return best if self.fractions[best] >= ENOUGH else None


def alignment_of(run: Run, *, time_first: bool = False) -> Alignment | None:
    """How targets and inputs lie to each other; None if the output is no (B, T, V) of token logits that the loss scores."""
    if run.score is None or run.output.dim() != 3:
        return None
    found = [
        alignment
        for ids in _candidates(run)
        if (alignment := _against(ids, run.score, time_first=time_first)) is not None
    ]
    return max(found, key=lambda alignment: max(alignment.fractions.values()), default=None)


def _candidates(run: Run) -> list[Tensor]:
    return [tap.indices for tap in run.taps if tap.indices is not None and tap.indices.dim() == 2]


def _against(ids: Tensor, score: Tensor, *, time_first: bool) -> Alignment | None:
    if time_first:
        ids, score = ids.T, score.transpose(0, 1)
    targets_BT, scored_BT = _targets(score, ids)
    if targets_BT is None or scored_BT is None:
        return None
    ahead = max(OFFSETS)
    window = [ids[:, k : ids.shape[1] - ahead + k] for k in OFFSETS]
    targets, scored = targets_BT[:, :-ahead], scored_BT[:, :-ahead]
    telling = scored & (window[0] != window[1]) & (window[1] != window[2]) & (window[0] != window[2])
    count = int(telling.sum())
    if count < FEWEST:
        return None
    fractions = {k: float((targets == window[k])[telling].float().mean()) for k in OFFSETS}
    return Alignment(ids, fractions, count)


def _targets(score: Tensor, ids: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The token that each position is pulled to, and which positions the loss scores. (B, V, T) is turned round."""
    B, T = ids.shape
    if score.shape[0] != B or T <= max(OFFSETS):
        return None, None
    if score.shape[1] < T and score.shape[2] == T:
        score = score.transpose(1, 2)
    if score.shape[1] < T or score.shape[2] <= int(ids.max()):
        return None, None
    score_BTV = score[:, score.shape[1] - T :]  # what comes before, such as an image, has no token
    lowest, targets_BT = score_BTV.min(dim=-1)
    return targets_BT, torch.isfinite(lowest) & (lowest < 0)
