"""Losses that compare: which of two scores is higher, which of two points is nearer, which key belongs to which query.

N pairs or triples, D dimensions. Each returns the mean over them, a scalar. Sources: F. Schroff et al., FaceNet, CVPR 2015,
section 3.1 (triplet); A. van den Oord et al., Representation learning with contrastive predictive coding, arXiv:1807.03748,
section 2.3 (InfoNCE).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.losses.entry import Curve, Inputs, Loss, Naive, normal, require_same_shape


def margin_ranking(first: Tensor, second: Tensor, order: Tensor, *, margin: float = 1.0) -> Tensor:
    """L = mean max(0, m − o (x₁ − x₂))            dL/dx₁ = −o [o (x₁ − x₂) < m] / n = −dL/dx₂

    order  o = 1 where the first is to have the higher score, −1 where the second is
    """
    require_same_shape("margin-ranking", first, second)
    require_same_shape("margin-ranking", first, order)
    return F.margin_ranking_loss(first, second, order.to(first.dtype), margin=margin)


def triplet(anchor_ND: Tensor, positive_ND: Tensor, negative_ND: Tensor, *, margin: float = 1.0) -> Tensor:
    """L = mean max(0, m + |a − p| − |a − n|)            dL/da = (u_ap − u_an) [> 0] / n,  u_xy = (x − y)/|x − y|

    |x − y| is ‖x − y + 1e-6‖, so that the gradient of two equal points is finite.
    """
    require_same_shape("triplet", anchor_ND, positive_ND)
    require_same_shape("triplet", anchor_ND, negative_ND)
    return F.triplet_margin_loss(anchor_ND, positive_ND, negative_ND, margin=margin)


def info_nce(query_ND: Tensor, key_ND: Tensor, *, temperature: float = 0.1) -> Tensor:
    """L = −mean log softmax_j(s_ij)_i,  s_ij = cos(q_i, k_j)/τ            dL/ds_ij = (p_ij − [i = j]) / n

    Row i of the keys belongs to row i of the queries; the other rows are its negatives.
    """
    require_same_shape("info-nce", query_ND, key_ND)
    similarity_NN = F.normalize(query_ND, dim=-1) @ F.normalize(key_ND, dim=-1).mT
    return F.cross_entropy(similarity_NN / temperature, torch.arange(len(query_ND), device=query_ND.device))


# --- the catalogue's part -----------------------------------------------------------------------------------------------


def _draw_pairs(generator: torch.Generator) -> Inputs:
    order = normal(generator, 6).sign()
    return {"first": normal(generator, 6), "second": normal(generator, 6), "order": order}


def _draw_triples(generator: torch.Generator) -> Inputs:
    anchor, positive, negative = (normal(generator, 4, 3) for _ in range(3))
    return {"anchor_ND": anchor, "positive_ND": positive, "negative_ND": negative}


def _draw_queries(generator: torch.Generator) -> Inputs:
    return {"query_ND": normal(generator, 4, 3), "key_ND": normal(generator, 4, 3)}


def _scores_apart(x: Tensor) -> Inputs:
    return {"first": x[None], "second": torch.zeros_like(x[None]), "order": torch.ones_like(x[None])}


def _farther(x: Tensor) -> Inputs:
    """The positive lies x nearer to the anchor, the negative at distance 4; the line has no end at 0."""
    anchor, zero = torch.zeros(1, 2, dtype=x.dtype), 0 * x
    positive, negative = torch.stack([4 + x, zero])[None], torch.stack([4 + zero, zero])[None]
    return {"anchor_ND": anchor, "positive_ND": positive, "negative_ND": negative}


def _similar(x: Tensor) -> Inputs:
    """Two queries at right angles; each key has the cosine x with its own query and √(1 − x²) with the other."""
    y = (1 - x.square()).sqrt()
    keys = torch.stack([torch.stack([x, y]), torch.stack([y, x])])
    return {"query_ND": torch.eye(2, dtype=x.dtype), "key_ND": keys}


def _equal_points() -> Inputs:
    return {"anchor_ND": torch.ones(1, 3), "positive_ND": torch.ones(1, 3), "negative_ND": torch.ones(1, 3)}


def naive_triplet(anchor_ND: Tensor, positive_ND: Tensor, negative_ND: Tensor) -> Tensor:
    """Distances as roots of sums of squares."""
    near = (anchor_ND - positive_ND).square().sum(dim=-1).sqrt()
    far = (anchor_ND - negative_ND).square().sum(dim=-1).sqrt()
    return F.relu(1 + near - far).mean()


def naive_info_nce(query_ND: Tensor, key_ND: Tensor, temperature: float = 0.01) -> Tensor:
    """−log of exp s_ii / Σ exp s_ij, at a low temperature."""
    exp_NN = (F.normalize(query_ND, dim=-1) @ F.normalize(key_ND, dim=-1).mT / temperature).exp()
    return -(exp_NN.diagonal() / exp_NN.sum(dim=-1)).log().mean()


MARGIN_RANKING = Loss(
    function=margin_ranking,
    task="ranking",
    formula="max(0, m − o (x₁ − x₂))",
    gradient="−o [o (x₁ − x₂) < m], for x₂ its negative",
    outliers="moderate: a wrongly ordered pair pulls with the force 1, however far apart the scores are",
    choose="only the order matters, and pairs are given: search results, preferences",
    avoid="scores must be probabilities or have a scale of their own (log-loss on the difference of scores)",
    draw=_draw_pairs,
    moves=("first", "second"),
    curve=Curve("x₁ − x₂, where the first is to be higher", -3.0, 3.0, _scores_apart),
)
TRIPLET = Loss(
    function=triplet,
    task="ranking",
    formula="max(0, m + |a − p| − |a − n|)",
    gradient="of a: (a − p)/|a − p| − (a − n)/|a − n| where the loss is above 0",
    outliers="moderate: the pull of a point is at most 2; a wrong triple never becomes easy",
    choose="embeddings in which like lies near like: faces, retrieval",
    avoid="most triples are easy and give no gradient (mine hard ones, or info-nce, which weighs all of a batch)",
    draw=_draw_triples,
    moves=("anchor_ND", "positive_ND", "negative_ND"),
    curve=Curve("|a − p| − |a − n|", -3.0, 3.0, _farther),
    naive=Naive(
        form="max(0, m + √Σ(a − p)² − √Σ(a − n)²)",
        breaks="the root has no slope at 0: where anchor and positive are equal the gradient is 0 · inf = nan",
        function=naive_triplet,
        at=_equal_points,
    ),
)
INFO_NCE = Loss(
    function=info_nce,
    task="ranking",
    formula="−log (exp s_ii / Σ_j exp s_ij),  s_ij = cos(q_i, k_j)/τ",
    gradient="of s_ij: p_ij − [i = j]",
    outliers="moderate: cosines are bounded, so a term is at most 2/τ + log n; false negatives hurt",
    choose="embeddings of pairs, large batches: two views of an image, text and image",
    avoid="batches are small (few negatives), or many keys of a batch belong to one query",
    draw=_draw_queries,
    moves=("query_ND", "key_ND"),
    curve=Curve("cosine of query and own key, of two pairs", 0.01, 0.99, _similar),
    naive=Naive(
        form="−log(exp s_ii / Σ_j exp s_ij)",
        breaks="with τ = 0.01 a cosine of 1 gives exp 100 = inf in float32: inf/inf = nan",
        function=naive_info_nce,
        at=lambda: {"query_ND": torch.eye(3), "key_ND": torch.eye(3)},
    ),
)
LOSSES = (MARGIN_RANKING, TRIPLET, INFO_NCE)
