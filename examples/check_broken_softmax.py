"""A Transformer with a custom softmax in one of its blocks, whose backward forgets a term; nothing raises.

    chainrule check examples/check_broken_softmax.py

Expected output:
...
error[gradient-mismatch] blocks.1.attention...
...
FAIL...
"""

import math

import torch
from torch import Tensor

import chainrule as cr
from chainrule.models import Transformer, next_token_loss
from chainrule.models.attention import Attention


class FastSoftmax(torch.autograd.Function):
    """softmax over the last dimension. Right would be: weights * (g - (g * weights).sum(-1, keepdim=True))."""

    @staticmethod
    def forward(ctx, scores: Tensor) -> Tensor:
        weights = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        return weights * g


class FastAttention(Attention):
    """Causal self-attention as in the model, with the softmax above."""

    def forward(self, x_BTD: Tensor, *_: object) -> Tensor:
        T, K = x_BTD.shape[1], self.head_width
        scores_BNTT = self.split(self.query(x_BTD)) @ self.split(self.key(x_BTD)).mT / math.sqrt(K)
        future_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
        weights_BNTT = FastSoftmax.apply(scores_BNTT.masked_fill(future_TT, -math.inf))
        return self.output((weights_BNTT @ self.split(self.value(x_BTD))).transpose(1, 2).flatten(2))


def setup() -> cr.Setup:
    """The set-up that `chainrule check` takes."""
    torch.manual_seed(0)
    model = Transformer(vocabulary=64, layers=3, heads=2, hidden=32, context=16)
    model.blocks[1].attention = FastAttention(hidden=32, heads=2, key_value_heads=2, bias=True, dropout=0.0)
    tokens = torch.randint(64, (4, 17))
    return cr.Setup(model, next_token_loss, [{"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}])


if __name__ == "__main__":
    print(cr.check(setup()))
