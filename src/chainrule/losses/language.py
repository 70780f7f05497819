"""Losses of a word given its context's vector: over the whole vocabulary, against a few noise words, along a tree.

N contexts, D dimensions, V words, K noise words for each context, M inner nodes of the tree, L steps of the longest path.
Each returns the mean over contexts, a scalar. Sources: T. Mikolov et al., Distributed representations of words and phrases,
NIPS 2013, equations 2 to 4; F. Morin and Y. Bengio, Hierarchical probabilistic neural network language model, AISTATS 2005.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.losses.entry import Curve, Inputs, Loss, Naive, integers, normal, require_same_shape


def full_softmax(context_ND: Tensor, output_VD: Tensor, target_N: Tensor) -> Tensor:
    """L = −log softmax(W h)_t            dL/dh = Wᵀ (p − y) / n            dL/dW = Σ (p − y) hᵀ / n

    context_ND  h of each context
    output_VD   W, a row for each word
    target_N    the word that was there
    """
    require_same_shape("full-softmax", context_ND[:, 0], target_N)
    return F.cross_entropy(F.linear(context_ND, output_VD), target_N)


def negative_sampling(context_ND: Tensor, output_VD: Tensor, target_N: Tensor, noise_NK: Tensor) -> Tensor:
    """L = −log σ(w_t·h) − Σ_k log σ(−w_k·h)            dL/dh = ((σ(w_t·h) − 1) w_t + Σ_k σ(w_k·h) w_k) / n

    noise_NK  words drawn as noise; one that is the target itself does not count

    It compares with noise and normalises nothing: w·h is no log probability.
    """
    require_same_shape("negative-sampling", context_ND[:, 0], target_N)
    right_N = (F.embedding(target_N, output_VD) * context_ND).sum(dim=-1)
    wrong_NK = (F.embedding(noise_NK, output_VD) @ context_ND[:, :, None]).squeeze(-1)
    noise_N = (F.softplus(wrong_NK) * (noise_NK != target_N[:, None])).sum(dim=-1)
    return (F.softplus(-right_N) + noise_N).mean()


def hierarchical_softmax(context_ND: Tensor, node_MD: Tensor, path_NL: Tensor, turn_NL: Tensor) -> Tensor:
    """L = −Σ_l log σ(s_l v_l·h)            dL/dh = Σ_l (σ(v_l·h) − [s_l = 1]) v_l / n

    node_MD  v, a row for each inner node of a binary tree whose leaves are the words
    path_NL  the nodes from the root to the word; −1 after its end
    turn_NL  s = 1 where the path turns to the first child, −1 where to the second

    σ(x) + σ(−x) = 1 at each node, so the probabilities of all words sum to 1; a word costs L products instead of V.
    """
    require_same_shape("hierarchical-softmax", path_NL, turn_NL)
    on_path_NL = path_NL >= 0
    node_NLD = F.embedding(torch.where(on_path_NL, path_NL, 0), node_MD)
    score_NL = (node_NLD @ context_ND[:, :, None]).squeeze(-1)
    return (F.softplus(-turn_NL.to(score_NL.dtype) * score_NL) * on_path_NL).sum(dim=-1).mean()


# --- the catalogue's part -----------------------------------------------------------------------------------------------


def perfect_tree(words: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """(path, turn) of words 0 ... 2^depth − 1 in the tree whose node i has the children 2i + 1 and 2i + 2."""
    turns = 1 - 2 * (words[:, None] >> torch.arange(depth - 1, -1, -1) & 1)
    paths = [torch.zeros_like(words)]
    for step in range(depth - 1):
        paths.append(2 * paths[-1] + torch.where(turns[:, step] == 1, 1, 2))
    return torch.stack(paths, dim=1), turns


def _draw_words(generator: torch.Generator) -> Inputs:
    target = integers(generator, 7, 5)
    return {"context_ND": normal(generator, 5, 3), "output_VD": normal(generator, 7, 3), "target_N": target}


def _draw_noise(generator: torch.Generator) -> Inputs:
    return {**_draw_words(generator), "noise_NK": integers(generator, 7, 5, 4)}


def _draw_paths(generator: torch.Generator) -> Inputs:
    path, turn = perfect_tree(integers(generator, 8, 5), depth=3)
    ended = torch.tensor([0, 0, 0, 0, 1])[:, None] * torch.tensor([0, 0, 1]) == 1  # the last word's path is shorter
    return {
        "context_ND": normal(generator, 5, 3),
        "node_MD": normal(generator, 7, 3),
        "path_NL": path.masked_fill(ended, -1),
        "turn_NL": turn,
    }


def _score(x: Tensor) -> Inputs:
    """Three words in one dimension: w·h is x for the right one, 0 for the others."""
    rows = torch.tensor([[1.0], [0.0], [0.0]], dtype=x.dtype)
    return {"context_ND": x[None, None], "output_VD": rows, "target_N": torch.zeros(1, dtype=torch.long)}


def _score_with_noise(x: Tensor) -> Inputs:
    return {**_score(x), "noise_NK": torch.tensor([[1]])}


def _score_at_root(x: Tensor) -> Inputs:
    path, turn = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.long)
    return {"context_ND": x[None, None], "node_MD": torch.ones(1, 1, dtype=x.dtype), "path_NL": path, "turn_NL": turn}


def _long_vectors() -> Inputs:
    target, rows = torch.tensor([0]), torch.tensor([[-10.0, 0.0], [10.0, 0.0]])
    return {"context_ND": torch.tensor([[20.0, 0.0]]), "output_VD": rows, "target_N": target}


def _deep_path() -> Inputs:
    path, turn = torch.arange(4)[None], torch.ones(1, 4, dtype=torch.long)
    return {"context_ND": torch.tensor([[-30.0]]), "node_MD": torch.ones(4, 1), "path_NL": path, "turn_NL": turn}


def naive_full_softmax(context_ND: Tensor, output_VD: Tensor, target_N: Tensor) -> Tensor:
    """−log of the quotient of exponentials."""
    exp_NV = (context_ND @ output_VD.mT).exp()
    return -(exp_NV.gather(1, target_N[:, None]).squeeze(1) / exp_NV.sum(dim=-1)).log().mean()


def naive_negative_sampling(context_ND: Tensor, output_VD: Tensor, target_N: Tensor, noise_NK: Tensor) -> Tensor:
    """−log σ(w_t·h) − Σ log(1 − σ(w_k·h))."""
    right_N = torch.sigmoid((output_VD[target_N] * context_ND).sum(dim=-1))
    wrong_NK = torch.sigmoid((output_VD[noise_NK] * context_ND[:, None]).sum(dim=-1))
    return -(right_N.log() + (1 - wrong_NK).log().sum(dim=-1)).mean()


def naive_hierarchical_softmax(context_ND: Tensor, node_MD: Tensor, path_NL: Tensor, turn_NL: Tensor) -> Tensor:
    """−log of the product of the turns' probabilities."""
    turn_p_NL = torch.sigmoid(turn_NL * (node_MD[path_NL] * context_ND[:, None]).sum(dim=-1))
    return -turn_p_NL.prod(dim=-1).log().mean()


FULL_SOFTMAX = Loss(
    function=full_softmax,
    task="language",
    formula="−log (exp w_t·h / Σ_v exp w_v·h)",
    gradient="of h: Wᵀ (p − y)",
    outliers="sensitive to wrong words, as the cross entropy, which it is",
    choose="vocabularies up to some ten thousand words; true probabilities, a true perplexity",
    avoid="word vectors over large vocabularies: each context costs V products (the two below)",
    draw=_draw_words,
    moves=("context_ND", "output_VD"),
    curve=Curve("score w·h of the right word; two others have 0", -6.0, 6.0, _score),
    naive=Naive(
        form="−log(exp w_t·h / Σ exp w_v·h)",
        breaks="exp overflows beyond a score of 88 in float32: inf/inf = nan",
        function=naive_full_softmax,
        at=_long_vectors,
    ),
)
NEGATIVE_SAMPLING = Loss(
    function=negative_sampling,
    task="language",
    formula="−log σ(w_t·h) − Σ_k log σ(−w_k·h)",
    gradient="of h: (σ(w_t·h) − 1) w_t + Σ_k σ(w_k·h) w_k",
    outliers="moderate: a wrong word pulls with at most its vector's length",
    choose="word vectors over large vocabularies: a context costs K + 1 products",
    avoid="you want probabilities of words: its scores are log odds against noise",
    draw=_draw_noise,
    moves=("context_ND", "output_VD"),
    curve=Curve("score w·h of the right word; one noise word has 0", -6.0, 6.0, _score_with_noise),
    naive=Naive(
        form="−log σ(w_t·h) − Σ log(1 − σ(w_k·h))",
        breaks="σ is 1 beyond a score of 17 and 0 below −104 in float32: log 0 = −inf",
        function=naive_negative_sampling,
        at=lambda: {**_long_vectors(), "noise_NK": torch.tensor([[1]])},
    ),
)
HIERARCHICAL_SOFTMAX = Loss(
    function=hierarchical_softmax,
    task="language",
    formula="−Σ_l log σ(s_l v_l·h)",
    gradient="of h: Σ_l (σ(v_l·h) − [s_l = 1]) v_l",
    outliers="sensitive to wrong words: each turn of the path adds its own loss",
    choose="large vocabularies with many rare words; probabilities that sum to 1 at log V products a word",
    avoid="frequent words matter most (negative-sampling is better there); the tree says nothing of the words' meaning",
    draw=_draw_paths,
    moves=("context_ND", "node_MD"),
    curve=Curve("score v·h at a tree's only node, whose first child is the word", -6.0, 6.0, _score_at_root),
    naive=Naive(
        form="−log Π σ(s_l v_l·h)",
        breaks="a product of small probabilities is 0 in float32 below 1e-45: log 0 = −inf",
        function=naive_hierarchical_softmax,
        at=_deep_path,
    ),
)
LOSSES = (FULL_SOFTMAX, NEGATIVE_SAMPLING, HIERARCHICAL_SOFTMAX)
