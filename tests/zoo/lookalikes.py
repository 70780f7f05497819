"""Healthy set-ups that a careless check takes for faulty: what looks like a fault is meant, or makes no difference.

Those of the list that the zoo has already (a key bias, a bias before batch norm, losses far from ln V, dropped paths) are
looked at there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch

Loss = Callable[[Any, Any], Tensor]


def trained(model: nn.Module, loss: Loss, batch: Any, rate: float = 1e-3, **more: Any) -> cr.Setup:
    """With AdamW on what is to be trained."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    return cr.Setup(model, loss, [batch], optimizer, **more)


def classes(rows: int = 8, width: int = 5, count: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, width), torch.arange(rows) % count


class LowRank(nn.Module):
    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


def adapters() -> cr.Setup:
    """H03: the gradient of `down` is exactly zero until `up` has moved; all else is frozen."""
    model = SmallGPT().requires_grad_(False)
    for block in model.blocks:
        block.query, block.value = LowRank(block.query), LowRank(block.value)
    return trained(model, next_token_loss, token_batch())


def twice_log_softmax() -> cr.Setup:
    """H05: log_softmax of a log_softmax is the same once more."""
    model = nn.Sequential(MLP((5, 16, 3), nn.GELU), nn.LogSoftmax(-1))
    return trained(model, class_loss, classes())


def group_relative() -> cr.Setup:
    """H07: exp(log p - log p without gradient) is 1 everywhere, and its gradient is that of log p."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids_BT, advantage_B = batch
        log_p_BT = -F.cross_entropy(model(ids_BT[:, :-1]).transpose(1, 2), ids_BT[:, 1:], reduction="none")
        return -((log_p_BT - log_p_BT.detach()).exp() * advantage_B[:, None]).mean()

    rewards_B = torch.tensor([1.0, 0.0, 0.0, 1.0])
    advantage_B = (rewards_B - rewards_B.mean()) / rewards_B.std()
    return trained(SmallGPT(), loss, (torch.randint(32, (4, 9)), advantage_B))


class Prefix(nn.Module):
    """A language model whose first `seen` tokens see each other; only what comes after them is predicted."""

    def __init__(self, seen: int = 4, width: int = 16) -> None:
        super().__init__()
        self.token, self.head = nn.Embedding(32, width), nn.Linear(width, 32)
        self.position = nn.Parameter(torch.randn(10, width) / 10)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        hidden_TT = torch.ones(10, 10, dtype=torch.bool).triu(1)
        hidden_TT[:, :seen] = False
        self.register_buffer("hidden", hidden_TT)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.token(ids_BT) + self.position, mask=self.hidden))


def prefix() -> cr.Setup:
    """H08"""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0])[:, 4:].flatten(0, 1), batch[1][:, 4:].flatten())

    return trained(Prefix(), loss, token_batch(size=3, length=10))


class Switch(nn.Module):
    """Each token goes to one expert, each expert takes as many as it has room for: others' tokens may push one out (H09).

    In training the router's input is jittered (H15).
    """

    def __init__(self, width: int = 8, experts: int = 3, room: int = 5) -> None:
        super().__init__()
        self.room = room
        self.enter, self.leave = nn.Linear(5, width), nn.Linear(width, 3)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(MLP((width, 16, width), nn.ReLU) for _ in range(experts))

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        h_BD = self.enter(x_BD)
        jitter = 1 + 0.02 * (torch.rand_like(h_BD) - 0.5) if self.training else 1.0
        chance_BE = self.router(h_BD * jitter).softmax(-1)
        chosen_BE = F.one_hot(chance_BE.argmax(-1), len(self.experts)).to(h_BD.dtype)
        kept_BE = chosen_BE * (chosen_BE.cumsum(0) <= self.room)
        mixed_BD = sum((kept_BE * chance_BE)[:, [e]] * expert(h_BD) for e, expert in enumerate(self.experts))
        balance = len(self.experts) * (chosen_BE.mean(0) * chance_BE.mean(0)).sum()
        return self.leave(h_BD + mixed_BD), balance


def switch() -> cr.Setup:
    """H09, H15"""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits_BC, balance = model(batch[0])
        return F.cross_entropy(logits_BC, batch[1]) + 0.01 * balance

    return trained(Switch(), loss, classes(12))


def contrastive_batch_norm() -> cr.Setup:
    """H09: both the statistics and the loss join the examples of a batch."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        one_BD, other_BD = (F.normalize(model(view), dim=-1) for view in batch)
        return F.cross_entropy(one_BD @ other_BD.T / 0.2, torch.arange(len(one_BD)))

    images = torch.randn(6, 3, 8, 8)
    return trained(BatchNormCNN(), loss, (images, images + 0.1 * torch.randn_like(images)))


class Tagger(nn.Module):
    """A padded row of an embedding, rows that no token names, and positions that no text is long enough for (H10)."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(500, 12, padding_idx=0), nn.Embedding(64, 12)
        self.recurrent, self.head = nn.GRU(12, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.token(ids_BT) + self.position.weight[: ids_BT.shape[1]]
        return self.head(self.recurrent(x_BTD)[0])


def unused_rows() -> cr.Setup:
    """H10"""
    ids_BT, tags_BT = torch.randint(1, 20, (3, 7)), torch.randint(4, (3, 7))
    ids_BT[1, 5:], tags_BT[1, 5:] = 0, -100
    return trained(Tagger(), lambda m, b: F.cross_entropy(m(b[0]).transpose(1, 2), b[1]), (ids_BT, tags_BT))


class Taught(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = MLP((5, 16, 8)).requires_grad_(False)
        self.student, self.predictor = MLP((8, 16, 6)), MLP((6, 16, 6))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)


def averaged_teacher() -> cr.Setup:
    """H11: a frozen backbone, and a teacher that is the moving average of the student."""

    def loss(model: Taught, batch: tuple[Tensor, Tensor]) -> Tensor:
        one_BD, other_BD = (model.backbone(view) for view in batch)
        with torch.no_grad():
            target_BD = model.teacher(other_BD)
        return 1 - F.cosine_similarity(model.predictor(model.student(one_BD)), target_BD).mean()

    def step(model: Taught, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = loss(model, batch)
        value.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
                kept.lerp_(new, 0.01)
        return value

    return trained(Taught(), loss, (torch.randn(8, 5), torch.randn(8, 5)), step=step)


def coupled_decay() -> cr.Setup:
    """H12: AdamW's decay falls with its rate, which Loshchilov and Hutter (2019) write otherwise."""
    built = trained(MLP((5, 16, 3), nn.GELU), class_loss, classes())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(built.optimizer, T_max=100)
    return cr.Setup(built.model, class_loss, built.batches, built.optimizer, schedule=schedule)


def factored_moments() -> cr.Setup:
    """H12: Adafactor, of which several conventions exist."""
    model = SmallGPT()
    return cr.Setup(model, next_token_loss, [token_batch()], torch.optim.Adafactor(model.parameters()))


class Average:
    """The moving average of a model, written into the tensors that its state_dict lends; attributes are copied beside it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = 0.9999 * (1 - math.exp(-self.updates / 2000))  # rises from 0: at first it is all but the model itself
        newest = model.state_dict()
        for name, kept in self.model.state_dict().items():
            if kept.dtype.is_floating_point:
                kept.mul_(decay).add_(newest[name], alpha=1 - decay)

    def copy_attributes(self, model: nn.Module) -> None:
        for name, value in vars(model).items():
            if not name.startswith("_") and name != "training":
                setattr(self.model, name, value)


def ramped_average() -> cr.Setup:
    """H13: yolov5#8979 took the average for overwritten by the model; but weights are no attributes."""
    model = BatchNormCNN()
    average = Average(model)

    def step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer) -> Tensor:
        optimizer.zero_grad()
        value = class_loss(model, batch)
        value.backward()
        optimizer.step()
        average.update(model)
        average.copy_attributes(model)
        return value

    return trained(model, class_loss, (torch.randn(8, 3, 8, 8), torch.arange(8) % 5), step=step)


def above_the_sine() -> cr.Setup:
    """H18: SO 41372874, in a benchmark of faulty programs and healthy: 2-2-2-1, tiny uniform weights, batches of two."""
    layers = (nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1), nn.Sigmoid())
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.05, 0.05) if parameter.dim() == 2 else nn.init.zeros_(parameter)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x_BD, y_B = batch
        return F.binary_cross_entropy(model(x_BD).squeeze(1), y_B)

    x_BD = torch.rand(2, 2) * torch.tensor([2 * math.pi, 2.0]) - torch.tensor([0.0, 1.0])
    optimizer = torch.optim.Adam(model.parameters())
    return cr.Setup(model, loss, [(x_BD, (x_BD[:, 1] > x_BD[:, 0].sin()).float())], optimizer)


class Padded(nn.Module):
    """A padded position attends to nothing, for which the fused attention returns 0 (H14)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.token, self.qkv, self.head = nn.Embedding(32, width), nn.Linear(width, 3 * width), nn.Linear(width, 32)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTD = self.token(ids_BT)
        real_BT = ids_BT != 0
        seen_B1TT = (real_BT[:, :, None] & real_BT[:, None]).tril()[:, None]
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x_BTD).chunk(3, -1))
        mixed_BTD = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_B1TT).transpose(1, 2).flatten(2)
        return self.head(x_BTD + mixed_BTD)


def blind_rows() -> cr.Setup:
    """H14: and the loss leaves those positions out."""
    ids_BT, targets_BT = (ids.clamp_min(1) for ids in token_batch(size=3, length=10))
    ids_BT[0, -3:], targets_BT[0, -3:] = 0, -100
    return trained(Padded(), next_token_loss, (ids_BT, targets_BT))


class Tied(nn.Module):
    """Integers in, no bias: ReLU stands at exactly 0, and the pooling and the selection have ties (H16)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, bias=False)
        self.body = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        pooled = F.max_pool2d(self.convolution(x_BCYX).relu(), 2).flatten(1)
        return self.body(pooled.sort(dim=1, descending=True)[0])


def ties() -> cr.Setup:
    """H16"""
    x_BCYX = torch.randint(0, 3, (6, 1, 6, 6)).float()
    x_BCYX[:, :, :3] = 0
    return trained(Tied(), class_loss, (x_BCYX, torch.arange(6) % 3))


def long_sums() -> cr.Setup:
    """H17: sums of 20,000 numbers in float32, most of which cancel, by scattered addition."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x_ND, bins_N = batch
        sums_BD = torch.zeros(4, 3).index_add(0, bins_N, model(x_ND))
        return (sums_BD / len(x_ND)).square().sum() + (model(x_ND[:64]) - x_ND[:64, :3]).square().mean()

    return trained(MLP((5, 8, 3), nn.SiLU), loss, (torch.randn(20_000, 5), torch.randint(4, (20_000,))))


def wasteful_gan() -> None:
    """H06: the critic's backward goes through the generator too, whose gradients are cleared before its own step."""
    generator, critic = MLP((4, 16, 5), nn.ReLU), MLP((5, 16, 1), nn.ReLU)
    g = torch.optim.Adam(generator.parameters(), 2e-3, (0.5, 0.999))
    d = torch.optim.Adam(critic.parameters(), 2e-3, (0.5, 0.999))
    for _ in range(6):
        real, fake = critic(torch.randn(16, 5) + 1), critic(generator(torch.randn(16, 4)))
        d.zero_grad()
        (F.softplus(-real) + F.softplus(fake)).mean().backward()
        d.step()
        g.zero_grad()
        F.softplus(-critic(generator(torch.randn(16, 4)))).mean().backward()
        g.step()


SETUPS: tuple[tuple[str, Callable[[], cr.Setup]], ...] = (
    ("H03", adapters),
    ("H05", twice_log_softmax),
    ("H07", group_relative),
    ("H08", prefix),
    ("H09, H15", switch),
    ("H09", contrastive_batch_norm),
    ("H10", unused_rows),
    ("H11", averaged_teacher),
    ("H12 AdamW", coupled_decay),
    ("H12 Adafactor", factored_moments),
    ("H13", ramped_average),
    ("H14", blind_rows),
    ("H16", ties),
    ("H17", long_sums),
    ("H18", above_the_sine),
)
