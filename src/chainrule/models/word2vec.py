"""Word2Vec by its textbook formulas: two tables of vectors, and the three losses that make one predict the other.

    B examples, C words of a window, D dimensions, V words, S negatives, L inner nodes of a path

    skip-gram  h = input vector of the one context word              (Mikolov et al. 2013, "Efficient Estimation")
    CBOW       h = mean of the input vectors of the window           (its gradient is the mean's: Irsoy et al. 2021)

Slow and plain on purpose: this is what a kernel is proved against (`train/words/proof.py`), and what the gradient engines
train on small vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = Mapping[str, Tensor]


class Word2Vec(nn.Module):
    """Input vectors, the result of training, and output vectors: one a word, or one an inner node of a Huffman tree.

    Input vectors start uniform in ±1/(2D), output vectors at zero, as in the authors' program.
    """

    def __init__(self, words: int, outputs: int, dimensions: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.input = nn.Embedding(words, dimensions)
        self.output = nn.Embedding(outputs, dimensions)
        with torch.no_grad():
            self.input.weight.uniform_(-0.5 / dimensions, 0.5 / dimensions, generator=generator)
            self.output.weight.zero_()

    def forward(self, window_BC: Tensor, present_BC: Tensor) -> Tensor:
        """h_BD: the mean of each window's input vectors; places where `present_BC` is 0 are empty."""
        vectors_BCD = self.input(window_BC)
        total_BD = (vectors_BCD * present_BC.unsqueeze(-1)).sum(dim=1)
        mean_BD: Tensor = total_BD / present_BC.sum(dim=1, keepdim=True)
        return mean_BD

    def score(self, h_BD: Tensor, output_BN: Tensor) -> Tensor:
        """(B, N): the dot product of each h with the output vectors of N words or nodes."""
        vectors_BND = self.output(output_BN)
        score_BN: Tensor = (h_BD.unsqueeze(1) * vectors_BND).sum(dim=-1)
        return score_BN


def negative_sampling_loss(model: Word2Vec, batch: Batch) -> Tensor:
    """Σ softplus(-h · o_target) + Σ weight softplus(h · o_negative): sums over examples, not means.

    batch: window_BC, present_BC, target_B, negative_BS, weight_BS; a weight is K / S, or 0 where a negative is the target.
    """
    h_BD = model(batch["window"], batch["present"])
    true_B1 = model.score(h_BD, batch["target"].unsqueeze(1))
    false_BS = model.score(h_BD, batch["negative"])
    return F.softplus(-true_B1).sum() + (batch["weight"] * F.softplus(false_BS)).sum()


def hierarchical_loss(model: Word2Vec, batch: Batch) -> Tensor:
    """-Σ log p(target), p = Π_j σ(±h · o_(path_j)), minus where the path turns to 1.

    batch: window_BC, present_BC, path_BL, code_BL, on_path_BL (0 beyond a path's end).
    """
    h_BD = model(batch["window"], batch["present"])
    signed_BL = (2 * batch["code"] - 1) * model.score(h_BD, batch["path"])
    return (batch["on_path"] * F.softplus(signed_BL)).sum()


def full_softmax_loss(model: Word2Vec, batch: Batch) -> Tensor:
    """-Σ log softmax(h · o)_target over all V words: exact, and V times the work of one word.

    batch: window_BC, present_BC, target_B.
    """
    h_BD = model(batch["window"], batch["present"])
    return F.cross_entropy(h_BD @ model.output.weight.T, batch["target"], reduction="sum")
