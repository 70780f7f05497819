"""Planted faults of floating-point numbers, each with its repaired twin."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chainrule import Setup
from faults.case import Case
from faults.hosts import (
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
    squared,
    windows,
)

Batch = tuple[Tensor, Tensor]


# --- gradients that are nan while the loss is not -----------------------------------------------------------------------


@seeded
def distance_of_equal_points(broken: bool) -> Setup:
    """The distance between a point and itself: sqrt at 0."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        h = model.body(batch[0])
        square = (h[:, None] - h[None, :]).square().sum(-1)
        distance = (square if broken else square + 1e-8).sqrt()
        return cross_entropy(model, batch) + 0.1 * distance.mean()

    return setup(Net(), loss, classes())


@seeded
def deviation_of_a_constant_row(broken: bool) -> Setup:
    """A normalisation written by hand without its epsilon; padded rows are zero."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(FEATURES, HIDDEN, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            variance = h.var(-1, keepdim=True)
            return (h - h.mean(-1, keepdim=True)) / (variance.sqrt() + 1e-5 if broken else (variance + 1e-5).sqrt())

    x, labels = classes()
    x[5] = 0
    return setup(Net(body=Normed()), cross_entropy, (x, labels))


@seeded
def angle_between_equal_vectors(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        weight = F.normalize(model.head.weight, dim=1)
        cosine = (weight @ weight.T).clamp(-1, 1) if broken else (weight @ weight.T) * (1 - 1e-4)
        return cross_entropy(model, batch) - 0.01 * torch.acos(cosine).mean()

    return setup(Net(), loss, classes())


@seeded
def branch_not_taken(broken: bool) -> Setup:
    """where() after a square root: value right, slope 0 · inf."""

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside = x if broken else x.clamp_min(1e-6)
            return torch.where(x > 0, inside.sqrt(), 0.0)

    return setup(Net(body=Body(Root)), cross_entropy, classes())


@seeded
def log_hidden_by_a_mask(broken: bool) -> Setup:
    """An entropy with 0 log 0 replaced by 0, too late."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        p = F.relu(model.body.first(batch[0]))
        p = p / p.sum(-1, keepdim=True).clamp_min(1e-6)
        terms = p * (p if broken else p.clamp_min(1e-9)).log()
        return cross_entropy(model, batch) + 0.01 * terms.masked_fill(p == 0, 0.0).sum(-1).mean()

    return setup(Net(), loss, classes())


# --- ranges -----------------------------------------------------------------------------------------------------------


@seeded
def cross_entropy_by_hand(broken: bool) -> Setup:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch[0])
        log_p = logits.softmax(-1).log() if broken else logits.log_softmax(-1)
        return -log_p.gather(1, batch[1][:, None]).mean()

    model = Net()
    nn.init.normal_(model.head.weight, std=20.0)
    return setup(model, loss, classes())


@seeded
def binary_cross_entropy_by_hand(broken: bool) -> Setup:
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        score, y = model(batch[0]).squeeze(1), batch[1].float()
        if broken:
            p = torch.sigmoid(score)
            return -(y * p.log() + (1 - y) * (1 - p).log()).mean()
        return F.binary_cross_entropy_with_logits(score, y)

    model = Net(1)
    nn.init.uniform_(model.head.weight, 0.0, 5.0)
    return setup(model, loss, (x, labels))


@seeded
def softmax_by_hand(broken: bool) -> Setup:
    class HandAttention(Block):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = 2.5 * q @ k.transpose(-1, -2)
            top = 0.0 if broken else scores.amax(-1, keepdim=True)
            mask = torch.ones(scores.shape[-2:]).tril()
            e = (scores - top).exp() * mask
            return e / e.sum(-1, keepdim=True) @ v

    model = LM(block=HandAttention)
    for block in model.blocks:
        nn.init.normal_(block.qkv.weight, std=0.4)
    return setup(model, next_token, windows())


@seeded
def softplus_by_hand(broken: bool) -> Setup:
    class Softplus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (1 + x.exp()).log() if broken else F.softplus(x)

    x, y = numbers()
    return setup(Net(1, last=Softplus()), squared, (x * 800, y.abs()))


@seeded
def confident_and_wrong(broken: bool) -> Setup:
    x, labels = classes(number=2)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        score, y = model(batch[0]).squeeze(1), batch[1].float()
        if broken:
            return F.binary_cross_entropy(score.sigmoid(), y)
        return F.binary_cross_entropy_with_logits(score, y)

    return setup(Net(1), loss, (x * 500, labels))


@seeded
def activations_near_the_end_of_float16(broken: bool) -> Setup:
    class Loud(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x) * (7500.0 if broken else 2.0)
            return self.head(h / (7500.0 if broken else 2.0)).float()

    x, labels = classes()
    model = Loud().half()
    nn.init.normal_(model.body.first.weight, std=0.8)
    return setup(model, cross_entropy, (x.half(), labels))


@seeded
def gradients_below_float16(broken: bool) -> Setup:
    """A mean over very many tokens, written as a factor; the twin scales the loss."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return 2e-6 * F.cross_entropy(model(batch[0]).float(), batch[1], reduction="sum")

    x, labels = classes()
    scaler = None if broken else torch.amp.GradScaler("cpu", init_scale=65536.0)
    return setup(Net().half(), loss, (x.half(), labels), scaler=scaler)


# --- masks, positions, labels -------------------------------------------------------------------------------------------


@seeded
def a_row_that_sees_nothing(broken: bool) -> Setup:
    """A strict triangle: the first position may not even see itself."""

    class Strict(Block):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(0 if broken else 1)
            return scores.masked_fill(hidden, -1e9).softmax(-1) @ v

    return setup(LM(block=Strict), next_token, windows())


@seeded
def a_mask_that_hides_all(broken: bool) -> Setup:
    """The padding mask the wrong way round: row 0 has no padding, so everything of it is hidden."""

    class Masked(Block):
        def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            padded = torch.zeros(q.shape[0], 1, 1, q.shape[2], dtype=torch.bool)
            padded[1, ..., 6:] = True
            past = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
            return F.scaled_dot_product_attention(q, k, v, attn_mask=past & (padded if broken else ~padded))

    ids, targets = windows()
    targets[1, 6:] = -100
    return setup(LM(block=Masked), next_token, (ids, targets))


class Waves(LM):
    """Sinusoidal positions computed from numbers in a narrow dtype."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        del self.position

    def numbers(self, ids_BT: Tensor) -> Tensor:
        return torch.arange(ids_BT.shape[1]).to(self.dtype)

    def forward(self, ids_BT: Tensor) -> Tensor:
        frequency = 10000 ** (-torch.arange(0, 16, 2) / 16)
        angle = self.numbers(ids_BT).unsqueeze(-1) * frequency
        x = self.embed(ids_BT) + torch.cat((angle.sin(), angle.cos()), -1).float()
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@seeded
def positions_in_bfloat16(broken: bool) -> Setup:
    model = Waves()
    model.dtype = torch.bfloat16 if broken else torch.float32
    return setup(model, next_token, windows(1, 400))


@seeded
def counted_positions_in_bfloat16(broken: bool) -> Setup:
    """Positions as a running sum over the padding mask."""

    class Counted(Waves):
        def numbers(self, ids_BT: Tensor) -> Tensor:
            mask = (ids_BT != 0).to(torch.bfloat16)
            return mask.cumsum(-1) if broken else mask.float().cumsum(-1)

    return setup(Counted(), next_token, windows(1, 400))


@seeded
def nan_in_the_second_batch(broken: bool) -> Setup:
    first, second = classes(), classes()
    if broken:
        second[0][3, 4] = float("nan")
    return Setup(Net(), cross_entropy, [first, second])


@seeded
def only_ignored_labels(broken: bool) -> Setup:
    first, second = windows(), windows()
    second[1][:, 0 if broken else 1 :] = -100
    return Setup(LM(), next_token, [first, second])


@seeded
def a_layer_outside_autocast(broken: bool) -> Setup:
    class Gap(Body):
        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.first(x))
            with torch.autocast("cpu", enabled=not broken, dtype=torch.bfloat16):
                return F.relu(self.second(h.float()))

    class Mixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).float(), batch[1])

    return setup(Mixed(body=Gap()), loss, classes())


@seeded
def nan_after_three_steps(broken: bool) -> Setup:
    model = Net(1)
    x, y = numbers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e4 if broken else 0.01)
    return setup(model, squared, (x * 10, y * 50), optimizer=optimizer)


CASES = (
    Case("N02a", "pytorch#2421", "sqrt at 0 in a distance", "nan-gradient", distance_of_equal_points, ".sqrt()"),
    Case("N02b", "pytorch#2721", "sqrt of a variance of 0", "nan-gradient", deviation_of_a_constant_row, "sqrt"),
    Case("N02c", "pytorch PR#2775", "acos at 1", "nan-gradient", angle_between_equal_vectors, "acos"),
    Case("N02d", "generic", "where() after sqrt", "nan-gradient", branch_not_taken, "sqrt"),
    Case("N02e", "generic", "log(0) hidden by a mask", "nan-gradient", log_hidden_by_a_mask, "log()"),
    Case("S21a", "StackOverflow 40192728", "log(softmax)", "log-underflow", cross_entropy_by_hand, "softmax(-1).log()"),
    Case("S21b", "StackOverflow 52048171", "log(1 - p)", "log-underflow", binary_cross_entropy_by_hand, "p.log()"),
    Case("S21c", "StackOverflow 57346868", "softmax without maximum", "exp-overflow", softmax_by_hand, "blocks.0"),
    Case("S21d", "generic", "softplus by hand", "exp-overflow", softplus_by_hand, "last.exp"),
    Case(
        "S04f", "StackOverflow 60801900", "wrong and saturated", "saturated-probability", confident_and_wrong, "score"
    ),
    Case("N07a", "generic AMP", "gradients of 1e-8", "gradient-underflow", gradients_below_float16, ""),
    Case("N07b", "generic AMP", "values of 40,000", "near-overflow", activations_near_the_end_of_float16, "self.body"),
    Case("N04a", "hyunwoongko PR#40", "strict triangle", "fully-masked-row", a_row_that_sees_nothing, "blocks.0"),
    Case("N04b", "generic", "padding mask inverted", "fully-masked-row", a_mask_that_hides_all, "blocks.0"),
    Case("N08a", "generic", "positions", "low-precision-integers", positions_in_bfloat16, "arange"),
    Case("N08b", "generic", "counts", "low-precision-integers", counted_positions_in_bfloat16, "cumsum"),
    Case("S28", "StackOverflow 53640858", "nan in a batch", "batch-not-finite", nan_in_the_second_batch, "batch 1[0]"),
    Case("L22", "torch semantics", "only ignored labels", "no-labels", only_ignored_labels, "batch 1[1]"),
    Case(
        "TC06", "lightning-thunder#725", "float32 inside autocast", "autocast-gap", a_layer_outside_autocast, "second"
    ),
    Case("S12b", "StackOverflow 37624102", "nan in step 3", "loss-not-finite", nan_after_three_steps, "", "k"),
)
