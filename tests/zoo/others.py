"""Healthy models that are awkward: penalties, contrast, policies, branches, in-place code, frozen and unused parts.

B batch, D width, A actions
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical

from zoo.case import Built


def smallest() -> Built:
    """Two inputs, two hidden neurons, one output, all sigmoid; squared error."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 1), nn.Sigmoid())
    return (
        model,
        squared,
        (torch.tensor([[-2.0, -1.0], [25.0, 6.0], [17.0, 4.0]]) / 10, torch.tensor([[1.0], [0], [0]])),
    )


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return ((model(batch[0]) - batch[1]) ** 2).mean()


def penalised(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error plus L1 on all weights and L2 on the first layer's."""
    small = sum(parameter.abs().sum() for parameter in model.parameters())
    return F.mse_loss(model(batch[0]), batch[1]) + 1e-3 * small + 1e-2 * model[0].weight.norm() ** 2


def mlp_penalty() -> Built:
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.SiLU(), nn.PReLU(), nn.Linear(8, 2))
    return model, penalised, (torch.randn(7, 6), torch.randn(7, 2))


@dataclass
class Pair:
    """A batch that is neither tuple nor dict."""

    left: Tensor
    right: Tensor
    margin: float = 0.2


class TwoTowers(nn.Module):
    """Two encoders and a learned temperature, as in CLIP (Radford et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(9, 12), nn.GELU(), nn.Linear(12, 6))
        self.right = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 6))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, left_BD: Tensor, right_BD: Tensor) -> Tensor:
        left, right = (F.normalize(t, dim=-1) for t in (self.left(left_BD), self.right(right_BD)))
        return left @ right.T * self.scale.exp().clamp(max=100)


def info_nce(model: nn.Module, batch: Pair) -> Tensor:
    logits_BB = model(batch.left, batch.right)
    truth_B = torch.arange(logits_BB.shape[0])
    return (F.cross_entropy(logits_BB, truth_B) + F.cross_entropy(logits_BB.T, truth_B)) / 2


def contrastive() -> Built:
    return TwoTowers(), info_nce, Pair(torch.randn(6, 9), torch.randn(6, 5))


class Triplet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x_3BD: Tensor) -> Tensor:
        anchor, near, far = self.net(x_3BD)
        return F.triplet_margin_loss(anchor, near, far) + (1 - F.cosine_similarity(anchor, near)).mean()


def own_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


def triplet() -> Built:
    return Triplet(), own_loss, torch.randn(3, 6, 8)


def policy_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 5))


def ppo_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Clipped surrogate and entropy bonus (Schulman et al. 2017, equation 7); last output is the value."""
    out = model(batch["state"])
    policy, value_B = Categorical(logits=out[:, :-1], validate_args=False), out[:, -1]
    ratio_B = (policy.log_prob(batch["action"]) - batch["old"]).exp()
    gain_B = torch.min(ratio_B * batch["advantage"], ratio_B.clamp(0.8, 1.2) * batch["advantage"])
    return -gain_B.mean() + 0.5 * F.mse_loss(value_B, batch["return"]) - 0.01 * policy.entropy().mean()


def ppo() -> Built:
    batch = {"state": torch.randn(8, 4), "action": torch.randint(4, (8,)), "old": -torch.rand(8) - 1}
    return policy_net(), ppo_loss, batch | {"advantage": torch.randn(8), "return": torch.randn(8)}


def grpo_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """exp(log p - detach(log p)) is 1 in value and right in gradient."""
    log_p_B = model(batch["state"]).log_softmax(-1).gather(1, batch["action"][:, None]).squeeze(1)
    return -((log_p_B - log_p_B.detach()).exp() * batch["advantage"]).mean()


def grpo() -> Built:
    batch = {"state": torch.randn(6, 4), "action": torch.randint(5, (6,)), "advantage": torch.randn(6)}
    return policy_net(), grpo_loss, batch


class Branching(nn.Module):
    """Python looks at values: torch.export cannot, the tape can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x_BD: Tensor) -> Tensor:
        h = torch.tanh(self.first(x_BD))
        if h.sum() > 0:
            h = h * 2
        for _ in range(int(h.abs().max().item() * 3) + 1):
            h = h + 0.1 * torch.sin(h)
        return self.up(h) if h.mean() > 0 else self.down(h)


def checked_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = F.mse_loss(model(batch[0]), batch[1])
    if not torch.isfinite(loss):
        raise ValueError("loss is not finite")
    return loss


def branching() -> Built:
    return Branching(), checked_loss, (torch.randn(4, 5), torch.randn(4, 3))


class InPlace(nn.Module):
    """Writes into its own activations and a buffer, and keeps one activation as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))
        self.last: Tensor | None = None

    def forward(self, x_BD: Tensor) -> Tensor:
        self.calls += 1
        h = self.first(x_BD).relu_()
        h = self.second(h)
        h.add_(x_BD.mean()).mul_(0.5)
        h[:, :2] = h[:, 2:4].clone() * h[:, 4:6].clone()
        h[:, -1].neg_()
        self.last = h.masked_fill_(x_BD[:, :1] > 1.5, 0.25)
        return self.last


def in_place() -> Built:
    return InPlace(), squared, (torch.randn(5, 6), torch.randn(5, 8))


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter whose second factor is zero (so the first has no gradient yet)."""

    def __init__(self, width: int = 8, rank: int = 2) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, width) / width)
        self.b = nn.Parameter(torch.zeros(width, rank))
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, x_BD: Tensor) -> Tensor:
        return F.gelu(self.base(x_BD) + x_BD @ self.a.T @ self.b.T)


def frozen() -> Built:
    """A frozen backbone, an adapter, a parameter that nothing uses, and a teacher run without gradient."""
    return nn.ModuleList((Adapted(), Adapted(), nn.Linear(8, 8).requires_grad_(False))), distil, torch.randn(5, 8)


def distil(model: nn.ModuleList, x_BD: Tensor) -> Tensor:
    with torch.no_grad():
        teacher_BD = model[2](x_BD).softmax(-1)
    student_BD = model[1](model[0](x_BD)).log_softmax(-1)
    return F.kl_div(student_BD, teacher_BD, reduction="batchmean")


class Mixed(nn.Module):
    """Half-precision arithmetic inside, by autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4))

    def forward(self, x_BD: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x_BD)


def mixed_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).float(), batch[1])


def autocast() -> Built:
    return Mixed(), mixed_loss, (torch.randn(6, 8), torch.randint(4, (6,)))
