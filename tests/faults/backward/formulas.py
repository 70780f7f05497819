"""The unit formulas that host planted faults, each with its right backward, in plain torch operations.

B batch, T tokens, D width, K head width, H heads, V vocabulary, N rows
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from faults.backward.formula import Formula, Gradients

D_MODEL = 16  # width of the host
EPS, SMOOTHING, Z_WEIGHT, P_DROP, CARRY, PAD = 1e-5, 0.1, 1e-2, 0.25, 0.3, 0


def linear_forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w.mT + b


def linear_backward(g: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Gradients:
    g_ND, x_ND = g.flatten(0, -2), x.flatten(0, -2)
    return g @ w, g_ND.mT @ x_ND, g_ND.sum(0)


def normalised(x: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """(x̂, 1/σ) over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    r = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return centred * r, r


def layer_norm_stock(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), w, b, EPS)


def layer_norm_forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return normalised(x)[0] * w + b


def layer_norm_backward(g: Tensor, x: Tensor, w: Tensor, b: Tensor, eps: float = EPS) -> Gradients:
    n, r = normalised(x, eps)
    s = g * w
    dx = r * (s - s.mean(-1, keepdim=True) - n * (s * n).mean(-1, keepdim=True))
    return dx, (g * n).flatten(0, -2).sum(0), g.flatten(0, -2).sum(0)


def gelu_forward(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gelu_backward(g: Tensor, x: Tensor) -> Gradients:
    return (g * (0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density(x)),)


def relu_forward(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def relu_backward(g: Tensor, x: Tensor) -> Gradients:
    return (g * (x > 0),)


def softmax_stock(x: Tensor) -> Tensor:
    return x.softmax(-1)


def softmax_forward(x: Tensor) -> Tensor:
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def softmax_backward(g: Tensor, x: Tensor) -> Gradients:
    y = softmax_forward(x)
    return (y * (g - (g * y).sum(-1, keepdim=True)),)


def attention_stock(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_weights(q: Tensor, k: Tensor, causal: bool = True) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return softmax_forward(scores.masked_fill(future, -math.inf) if causal else scores)


def attention_forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention_weights(q, k) @ v


def attention_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool = True, scale: float | None = None
) -> Gradients:
    p = attention_weights(q, k, causal)
    gp = g @ v.mT
    ds = p * (gp - (gp * p).sum(-1, keepdim=True)) * (scale or 1 / math.sqrt(q.shape[-1]))
    return ds @ k, ds.mT @ q, p.mT @ g


def blend_forward(p: Tensor, v: Tensor) -> Tensor:
    return p @ v


def blend_backward(g: Tensor, p: Tensor, v: Tensor) -> Gradients:
    return g @ v.mT, p.mT @ g


def embedding_stock(w: Tensor, ids: Tensor) -> Tensor:
    return F.embedding(ids, w, padding_idx=PAD)


def embedding_backward(g: Tensor, w: Tensor, ids: Tensor) -> Gradients:
    dw = torch.zeros_like(w).index_add_(0, ids.flatten(), g.flatten(0, -2))
    dw[PAD] = 0  # the padding row stays as it is, by nn.Embedding's contract
    return dw, None


def position_forward(x: Tensor, p: Tensor) -> Tensor:
    return x + p


def position_backward(g: Tensor, x: Tensor, p: Tensor) -> Gradients:
    return g, g.sum(0)


def gate_forward(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def gate_backward(g: Tensor, a: Tensor, b: Tensor) -> Gradients:
    return g * b, g * a


def scale_forward(x: Tensor, s: Tensor) -> Tensor:
    return x * s


def scale_backward(g: Tensor, x: Tensor, s: Tensor) -> Gradients:
    return g * s, (g * x).flatten(0, -2).sum(0)


def split_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    half = x.shape[-1] // 2
    return x[..., :half].clone(), x[..., half:].clone()


def split_backward(g_left: Tensor, g_right: Tensor, x: Tensor) -> Gradients:
    return (torch.cat((g_left, g_right), dim=-1),)


def shift_forward(x: Tensor) -> Tensor:
    """y_t = x_t + c·x_(t-1), as a token shift does."""
    return x + CARRY * F.pad(x[:, :-1], (0, 0, 1, 0))


def shift_backward(g: Tensor, x: Tensor) -> Gradients:
    return (g + CARRY * F.pad(g[:, 1:], (0, 0, 0, 1)),)


def dropout_stock(x: Tensor) -> Tensor:
    return F.dropout(x, P_DROP)


def dropout_mask(x: Tensor) -> tuple[Tensor, ...]:
    return (torch.empty_like(x).bernoulli_(1 - P_DROP),)


def dropout_forward(x: Tensor, mask: Tensor) -> Tensor:
    return x * mask / (1 - P_DROP)


def dropout_backward(g: Tensor, x: Tensor, mask: Tensor) -> Gradients:
    return (g * mask / (1 - P_DROP),)


def cross_entropy_forward(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the targets that are not PAD of smoothed cross entropy plus z·logsumexp² (Chowdhery et al. 2022)."""
    lse = logits.logsumexp(-1)
    log_p = logits - lse[:, None]
    picked = log_p.gather(1, targets[:, None]).squeeze(1)
    each = -(1 - SMOOTHING) * picked - SMOOTHING * log_p.mean(-1) + Z_WEIGHT * lse.square()
    kept = (targets != PAD).to(logits.dtype)
    return (each * kept).sum() / kept.sum()


def cross_entropy_backward(
    g: Tensor, logits: Tensor, targets: Tensor, smoothing: float = SMOOTHING, z_weight: float = Z_WEIGHT, hit: float = 1
) -> Gradients:
    p = logits.softmax(-1)
    truth = (1 - smoothing) * F.one_hot(targets, logits.shape[-1]).to(p.dtype) + smoothing / logits.shape[-1]
    each = p - hit * truth + 2 * z_weight * logits.logsumexp(-1, keepdim=True) * p
    kept = (targets != PAD).to(p.dtype)
    return g * each * (kept / kept.sum())[:, None], None


LINEAR = Formula("linear", F.linear, linear_forward, linear_backward)
LAYER_NORM = Formula("layer_norm", layer_norm_stock, layer_norm_forward, layer_norm_backward)
GELU = Formula("gelu", F.gelu, gelu_forward, gelu_backward)
RELU = Formula("relu", F.relu, relu_forward, relu_backward)
SOFTMAX = Formula("softmax", softmax_stock, softmax_forward, softmax_backward)
ATTENTION = Formula("attention", attention_stock, attention_forward, attention_backward)
BLEND = Formula("blend", blend_forward, blend_forward, blend_backward)
EMBEDDING = Formula("embedding", embedding_stock, embedding_stock, embedding_backward)
POSITION = Formula("position", position_forward, position_forward, position_backward)
GATE = Formula("gate", gate_forward, gate_forward, gate_backward)
SCALE = Formula("scale", scale_forward, scale_forward, scale_backward)
SPLIT = Formula("split", split_forward, split_forward, split_backward)
SHIFT = Formula("shift", shift_forward, shift_forward, shift_backward)
DROPOUT = Formula("dropout", dropout_stock, dropout_forward, dropout_backward, draw=dropout_mask)
CROSS_ENTROPY = Formula("cross_entropy", cross_entropy_forward, cross_entropy_forward, cross_entropy_backward)
