"""Healthy models of sequences, words and graphs: recurrent networks, word2vec, dilated convolution, a graph network.

B batch, T time, D width, V vocabulary, N negatives or graph nodes, C context words or channels
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.case import Built, tokens


class LSTMLM(nn.Module):
    def __init__(self, vocabulary: int = 40, width: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids_BT: Tensor) -> Tensor:
        y_BTD, _ = self.lstm(self.embed(ids_BT))
        return self.head(self.drop(y_BTD))


def next_word(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).transpose(1, 2), batch[1])


def lstm_lm() -> Built:
    return LSTMLM(), next_word, tokens(3, 7, 40)


class GRUClassifier(nn.Module):
    """Both directions; the mean over the real positions of each row."""

    def __init__(self, vocabulary: int = 30, width: int = 10, classes: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.gru = nn.GRU(width, 8, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, ids_BT: Tensor) -> Tensor:
        real_BT1 = (ids_BT != 0).unsqueeze(-1)
        y_BTD, _ = self.gru(self.embed(ids_BT))
        return self.head((y_BTD * real_BT1).sum(1) / real_BT1.sum(1))


def weighted_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.nll_loss(model(batch["ids"]).log_softmax(-1), batch["label"], weight=batch["weight"])


def gru_classifier() -> Built:
    ids_BT = torch.randint(1, 30, (4, 6))
    ids_BT[1, 4:], ids_BT[3, 2:] = 0, 0
    weight = torch.tensor([1.0, 0.5, 2.0, 1.5])
    return GRUClassifier(), weighted_nll, {"ids": ids_BT, "label": torch.randint(4, (4,)), "weight": weight}


class Unrolled(nn.Module):
    """A Python loop over time with an LSTM cell and a plain tanh cell; a regression from the last state."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.cell, self.plain = nn.LSTMCell(3, width), nn.RNNCell(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h = c = s = x_BTD.new_zeros(x_BTD.shape[0], self.head.in_features)
        for x_BD in x_BTD.unbind(1):
            h, c = self.cell(x_BD, (h, c))
            s = self.plain(h, s)
        return self.head(s)


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def unrolled() -> Built:
    return Unrolled(), squared, (torch.randn(4, 5, 3), torch.randn(4, 2))


class CBOW(nn.Module):
    """Mean of the context's vectors, softmax over the whole vocabulary (Mikolov et al. 2013a)."""

    def __init__(self, vocabulary: int = 50, width: int = 12) -> None:
        super().__init__()
        self.inputs = nn.Embedding(vocabulary, width)
        self.outputs = nn.Linear(width, vocabulary, bias=False)

    def forward(self, context_BC: Tensor) -> Tensor:
        return self.outputs(self.inputs(context_BC).mean(dim=1))


def centre_word(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def cbow() -> Built:
    return CBOW(), centre_word, (torch.randint(50, (8, 4)), torch.randint(50, (8,)))


def bag_of_words() -> Built:
    """The same with EmbeddingBag and one bag per row."""
    model = nn.Sequential(nn.EmbeddingBag(50, 12, mode="mean"), nn.Linear(12, 50))
    return model, centre_word, (torch.randint(50, (8, 4)), torch.randint(50, (8,)))


class SkipGram(nn.Module):
    """Negative sampling (Mikolov et al. 2013b, equation 4)."""

    def __init__(self, vocabulary: int = 50, width: int = 12) -> None:
        super().__init__()
        self.inputs, self.outputs = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)

    def forward(self, centre_B: Tensor, context_B: Tensor, negative_BN: Tensor) -> Tensor:
        v_BD, u_BD, n_BND = self.inputs(centre_B), self.outputs(context_B), self.outputs(negative_BN)
        positive_B = F.logsigmoid((v_BD * u_BD).sum(-1))
        negative_B = F.logsigmoid(-torch.bmm(n_BND, v_BD.unsqueeze(2)).squeeze(2)).sum(-1)
        return -(positive_B + negative_B).mean()


def sampled(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["centre"], batch["context"], batch["negative"])


def skip_gram() -> Built:
    batch = {"centre": torch.randint(50, (9,)), "context": torch.randint(50, (9,))}
    return SkipGram(), sampled, batch | {"negative": torch.randint(50, (9, 5))}


class Dilated(nn.Module):
    """Causal dilated convolution with gates and group norm, as in WaveNet (van den Oord et al. 2016)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Conv1d(2, width, 1)
        self.gated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(2, width) for _ in range(3))
        self.leave = nn.Conv1d(width, 2, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        y_BCT = self.enter(x_BCT)
        for i, (conv, norm) in enumerate(zip(self.gated, self.norms, strict=True)):
            y_BCT = y_BCT + F.glu(conv(F.pad(norm(y_BCT), (2**i, 0))), dim=1)
        return self.leave(F.silu(y_BCT))


def one_ahead(model: nn.Module, x_BCT: Tensor) -> Tensor:
    return F.smooth_l1_loss(model(x_BCT[..., :-1]), x_BCT[..., 1:])


def dilated() -> Built:
    return Dilated(), one_ahead, torch.randn(3, 2, 13).cumsum(-1) * 0.5


class GraphNet(nn.Module):
    """Graph convolution by gather and scatter (Kipf and Welling 2017), then the maximum over nodes of each graph."""

    def __init__(self, inputs: int = 5, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.bilinear, self.head = nn.Bilinear(width, width, 6), nn.Linear(6, 1)

    def spread(self, x_ND: Tensor, edges_2E: Tensor) -> Tensor:
        source, target = edges_2E
        degree_N = torch.ones_like(x_ND[:, 0]).scatter_add(0, target, torch.ones_like(target, dtype=x_ND.dtype))
        return (x_ND + torch.zeros_like(x_ND).index_add(0, target, x_ND[source])) / degree_N.sqrt()[:, None]

    def forward(self, x_ND: Tensor, edges_2E: Tensor) -> Tensor:
        h_ND = F.relu(self.first(self.spread(x_ND, edges_2E)))
        h_ND = torch.sin(self.second(self.spread(h_ND, edges_2E)))
        top_GD = h_ND.view(3, 4, -1).amax(dim=1)
        return self.head(self.bilinear(top_GD, h_ND.view(3, 4, -1).std(dim=1))).squeeze(-1)


def counts(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.poisson_nll_loss(model(batch["x"], batch["edges"]), batch["count"])


def graph_net() -> Built:
    edges_2E = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 1, 11], [1, 2, 3, 0, 5, 6, 4, 9, 10, 8, 0, 8]])
    return GraphNet(), counts, {"x": torch.randn(12, 5), "edges": edges_2E, "count": torch.tensor([0.0, 2.0, 1.0])}
