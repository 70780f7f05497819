"""Planted faults that show when the same thing is computed in two ways, each with its repaired twin."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chainrule import Setup
from faults.case import Case
from faults.hosts import (
    CLASSES,
    FEATURES,
    HIDDEN,
    LM,
    Block,
    Body,
    Net,
    classes,
    cross_entropy,
    next_token,
    numbers,
    seeded,
    setup,
    windows,
)

Batch = tuple[Tensor, Tensor]


def ragged_windows() -> Batch:
    """Rows with 2 to 9 labelled tokens."""
    ids, targets = windows(6)
    for row, length in enumerate((9, 2, 7, 3, 9, 2)):
        targets[row, length:] = -100
    return ids, targets


# --- accumulation -----------------------------------------------------------------------------------------------------


@seeded
def mean_of_token_means(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits, targets = model(batch[0]).flatten(0, 1), batch[1].flatten()
        total = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
        return total / (targets != -100).sum() if broken else total / 32  # tokens of all micro-batches of an update

    return setup(LM(), loss, ragged_windows(), accumulate=4)


@seeded
def mean_over_a_mask(broken: bool) -> Setup:
    """Ranks or micro-batches with unequal numbers of valid elements, averaged as if they were equal."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, y, mask = batch
        error = (model(x).squeeze(-1) - y).square() * mask
        return error.sum() / mask.sum() if broken else error.sum(-1).mean()

    x, mask = torch.randn(8, 5, FEATURES), torch.ones(8, 5)
    for row in range(8):
        mask[row, 1 + row % 5 :] = 0
    return setup(Net(1), loss, (x, torch.randn(8, 5), mask), accumulate=2)


class Fused(torch.autograd.Function):
    """A linear layer whose kernel writes the weight's gradient itself."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, add: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.add = add
        return x @ weight.T

    @staticmethod
    def backward(ctx, g: Tensor):
        x, weight = ctx.saved_tensors
        gradient = g.flatten(0, -2).T @ x.flatten(0, -2)
        if ctx.add:
            return g @ weight, gradient, None
        weight.grad = gradient
        return g @ weight, None, None


@seeded
def gradient_written_not_added(broken: bool) -> Setup:
    class FusedBody(Body):
        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.first(x))
            return self.act(Fused.apply(h, self.second.weight, not broken) + self.second.bias)

    return setup(Net(body=FusedBody()), cross_entropy, classes(), accumulate=2)


@seeded
def last_micro_batch_only(broken: bool) -> Setup:
    """A hook that keeps a copy of the gradient and puts it back, as a bucket of a parallel library may."""
    model = Net()
    kept: dict[str, Tensor] = {}

    def hook(gradient: Tensor) -> None:
        kept["new"] = gradient

    def after(parameter: nn.Parameter) -> None:
        parameter.grad = kept["new"].clone()

    if broken:
        model.head.weight.register_hook(hook)
        model.head.weight.register_post_accumulate_grad_hook(after)
    return setup(model, cross_entropy, classes(), accumulate=2)


@seeded
def divided_by_the_batch_twice(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        mean = F.mse_loss(model(batch[0]).squeeze(1), batch[1])
        return mean / len(batch[1]) if broken else mean

    return setup(Net(1), loss, numbers())


class SummedSquares(torch.autograd.Function):
    """Sum of squares with a backward that divides by the batch whatever the reduction."""

    @staticmethod
    def forward(ctx, x: Tensor, divide: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.divide = divide
        return x.square().sum()

    @staticmethod
    def backward(ctx, g: Tensor):
        (x,) = ctx.saved_tensors
        return 2 * g * x / (len(x) if ctx.divide else 1), None


@seeded
def backward_divides_by_the_batch(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return SummedSquares.apply(model(batch[0]).squeeze(1) - batch[1], broken)

    return setup(Net(1), loss, numbers())


# --- order and layout ---------------------------------------------------------------------------------------------------


@seeded
def positions_along_the_batch(broken: bool) -> Setup:
    class Crossed(LM):
        def forward(self, ids_BT: Tensor) -> Tensor:
            B, T = ids_BT.shape
            where = torch.arange(B)[:, None] if broken else torch.arange(T)
            x = self.embed(ids_BT) + self.position(where)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    return setup(Crossed(), next_token, windows())


@seeded
def labels_of_the_next_row(broken: bool) -> Setup:
    """Targets shifted over the flattened batch: the last one of a row is the next row's first token."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits, ids = model(batch[0]), batch[0]
        if broken:
            return F.cross_entropy(logits.flatten(0, 1)[:-1], ids.flatten()[1:])
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    return setup(LM(), loss, windows())


@seeded
def a_kernel_that_trusts_its_layout(broken: bool) -> Setup:
    class EveryOther(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(FEATURES // 2, HIDDEN)

        def forward(self, x: Tensor) -> Tensor:
            B = x.shape[0]
            half = torch.as_strided(x, (B, FEATURES // 2), (FEATURES, 2)) if broken else x[:, ::2]
            return self.first(half).relu()

    return setup(Net(body=EveryOther()), cross_entropy, classes())


# --- train and eval -----------------------------------------------------------------------------------------------------


@seeded
def dropout_always_on(broken: bool) -> Setup:
    class Noisy(Block):
        def drop(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.1) if broken else F.dropout(x, 0.1, self.training)

    return setup(LM(block=Noisy), next_token, windows())


@seeded
def dropout_made_in_forward(broken: bool) -> Setup:
    class Late(Body):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.2)

        def forward(self, x: Tensor) -> Tensor:
            drop = nn.Dropout(0.2) if broken else self.drop
            return drop(super().forward(x))

    return setup(Net(body=Late()), cross_entropy, classes())


@seeded
def attention_dropout_always_on(broken: bool) -> Setup:
    class Noisy(Block):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            p = 0.1 if broken or self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)

    return setup(LM(block=Noisy), next_token, windows())


@seeded
def two_code_paths(broken: bool) -> Setup:
    """The gate stands before the norm in training and after it in evaluation."""

    class Gated(Block):
        def forward(self, x: Tensor) -> Tensor:
            B, T, D = x.shape
            q, k, v = (t.view(B, T, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(D, 2))
            x = x + self.drop(self.out(self.attend(q, k, v).transpose(1, 2).reshape(B, T, D)))
            gate = x.sigmoid()
            h = self.norm2(x * gate) if self.training or not broken else self.norm2(x) * gate
            return x + self.drop(self.down(F.gelu(self.up(h))))

    def block(width: int) -> nn.Module:
        return Gated(width, dropout=0.1)

    return setup(LM(block=block), next_token, windows())


@seeded
def scaled_only_in_training(broken: bool) -> Setup:
    """Dropout written by hand without its 1/(1 - p), and p in evaluation forgotten."""

    class Temperature(Net):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits / 0.7 if self.training or not broken else logits

    return setup(Temperature(), cross_entropy, classes())


@seeded
def running_mean_by_hand(broken: bool) -> Setup:
    class Centred(Body):
        def __init__(self) -> None:
            super().__init__()
            self.total = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            if broken:
                self.total = self.total + h.detach().mean()
                return h - self.total
            return h - h.detach().mean()

    return setup(Net(body=Centred()), cross_entropy, classes())


@seeded
def spectral_norm_before_training(broken: bool) -> Setup:
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norm = nn.utils.spectral_norm if broken else nn.utils.parametrizations.spectral_norm
        model.body.first, model.head = norm(model.body.first), norm(nn.Linear(HIDDEN, CLASSES))
    return setup(model, cross_entropy, classes())


CASES = (
    Case("L01", "transformers PR#34191", "mean of means", "ragged-accumulation", mean_of_token_means, "/ (targets"),
    Case("L03", "transformers#34242", "mean over a mask", "ragged-accumulation", mean_over_a_mask, "mask.sum()"),
    Case("G30a", "llm.c PR#408", "kernel writes .grad", "lost-accumulation", gradient_written_not_added, "body.second"),
    Case("G30b", "pytorch#181723", "hook puts back a copy", "lost-accumulation", last_micro_batch_only, "head.weight"),
    Case("L25", "generic", "mean / batch size", "duplicated-batch", divided_by_the_batch_twice, "mean / len"),
    Case("G17", "aprender PR#2182", "backward / batch", "duplicated-batch", backward_divides_by_the_batch, "square()"),
    Case("TC17", "generic", "positions along the batch", "batch-order", positions_along_the_batch, "cross_entropy"),
    Case("L05e", "transformers#46901", "target of the next row", "batch-order", labels_of_the_next_row, "flatten"),
    Case("N06", "pytorch#192212", "layout taken on trust", "memory-layout", a_kernel_that_trusts_its_layout, "strided"),
    Case("S25a", "StackOverflow 48138483", "F.dropout always on", "random-in-eval", dropout_always_on, "F.dropout(x"),
    Case("M16a", "PyTorchNLPBook#28", "made in forward", "random-in-eval", dropout_made_in_forward, "drop(super"),
    Case("M16b", "apex PR#1449", "attention dropout", "random-in-eval", attention_dropout_always_on, "blocks.0"),
    Case("M26a", "flash-linear-attention#63", "two code paths", "train-eval-gap", two_code_paths, "self.norm2"),
    Case("M26b", "generic", "scale in one mode only", "train-eval-gap", scaled_only_in_training, "logits / 0.7"),
    Case("S36c", "generic", "state kept between calls", "state-between-calls", running_mean_by_hand, "Net"),
    Case("TC08", "pytorch#51800", "spectral norm unused", "stale-buffers", spectral_norm_before_training, "weight_u"),
)
