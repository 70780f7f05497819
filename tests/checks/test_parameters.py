"""The checks of parameters: what they say in words, and the healthy look-alikes on which they are silent."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import chainrule as cr
from faults.parameters_faults import optimizer_of_a_copy
from small_models import MLP, BatchNormCNN, SmallGPT, class_loss, next_token_loss, token_batch

CHECKS = (
    "not-in-optimizer",
    "twice-in-optimizer",
    "not-registered",
    "frozen-parameter",
    "untied",
    "dead-parameter",
    "dead-loss-term",
    "discarded-result",
    "cut-gradient",
)


def said(setup: cr.Setup, only: tuple[str, ...] = CHECKS) -> list[str]:
    return [f"{f.severity} {f.check} {f.where}" for f in cr.check(setup, only=only).findings if f.severity != "info"]


def points(size: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 5), torch.arange(size) % 3


class Adapter(nn.Module):
    """A frozen layer and a low-rank correction that starts at zero."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(2, base.in_features) / 4)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


def test_an_adapter_whose_second_factor_is_zero_is_healthy():  # H03
    model = SmallGPT().requires_grad_(False)
    for block in model.blocks:
        block.value = Adapter(block.value)
    trained = [p for p in model.parameters() if p.requires_grad]

    assert [] == said(cr.Setup(model, next_token_loss, [token_batch()], torch.optim.AdamW(trained)))


def test_a_key_bias_and_a_bias_before_batch_norm_are_healthy():  # H01, H02
    images = torch.randn(5, 3, 8, 8), torch.arange(5)

    assert [] == said(cr.Setup(SmallGPT(), next_token_loss, [token_batch()]))
    assert [] == said(cr.Setup(BatchNormCNN(), class_loss, [images]))


class GAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = MLP((4, 16, 5)), MLP((5, 16, 1))


@pytest.mark.parametrize("detach", [True, False])
def test_the_critics_step_is_healthy_with_and_without_a_detach(detach):  # H06
    model = GAN()

    def loss(model: GAN, batch: tuple[Tensor, Tensor]) -> Tensor:
        fake = model.generator(batch[0])
        fake = fake.detach() if detach else fake
        return F.softplus(model.critic(fake)).mean() + F.softplus(-model.critic(batch[1])).mean()

    batch = torch.randn(6, 4), torch.randn(6, 5)
    found = said(cr.Setup(model, loss, [batch], torch.optim.Adam(model.critic.parameters())))

    # Without a detach the generator's gradient is computed for nothing, which is worth a warning.
    assert ([] if detach else ["warning not-in-optimizer generator.layers"]) == found
    assert [] == said(cr.Setup(model, loss, [batch]))


def test_a_ratio_of_one_with_its_own_gradient_is_healthy():  # H07
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        log_p = model(batch[0]).log_softmax(-1).gather(1, batch[1][:, None]).squeeze(1)
        return -((log_p - log_p.detach()).exp() * torch.linspace(-1, 1, len(log_p))).mean()

    assert [] == said(cr.Setup(MLP(), loss, [points()]))


class Bootstrap(nn.Module):
    """BYOL: an online network with a predictor, and a target network that is a moving average of it."""

    def __init__(self, *, frozen: bool) -> None:
        super().__init__()
        self.online, self.predictor = MLP((5, 16, 8)), MLP((8, 16, 8))
        self.target = copy.deepcopy(self.online).requires_grad_(not frozen)


def bootstrap_loss(model: Bootstrap, batch: tuple[Tensor, Tensor]) -> Tensor:
    total = torch.zeros(())
    for one, other in (batch, batch[::-1]):
        with torch.no_grad():
            target = model.target(other)
        total = total - F.cosine_similarity(model.predictor(model.online(one)), target).mean()
    return total


@pytest.mark.parametrize("frozen", [True, False])
def test_a_target_network_under_no_grad_is_healthy(frozen):  # H11
    batch = torch.randn(6, 5), torch.randn(6, 5)

    assert [] == said(cr.Setup(Bootstrap(frozen=frozen), bootstrap_loss, [batch]))


def test_a_frozen_backbone_is_healthy_whatever_the_optimizer_was_given():  # H11
    model = BatchNormCNN()
    model.convolution_1.requires_grad_(False)
    model.norm_1.requires_grad_(False)
    images = torch.randn(5, 3, 8, 8), torch.arange(5)
    chosen = [p for p in model.parameters() if p.requires_grad]

    assert [] == said(cr.Setup(model, class_loss, [images], torch.optim.SGD(chosen, lr=0.1)))
    assert [] == said(cr.Setup(model, class_loss, [images], torch.optim.SGD(model.parameters(), lr=0.1)))


def test_rows_of_an_embedding_that_no_token_names_are_healthy():  # H10
    model = SmallGPT(vocabulary=64)
    model.embedding.padding_idx = 0

    assert [] == said(cr.Setup(model, next_token_loss, [token_batch(8)]))


class Quantised(nn.Module):
    """A straight-through rounding in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.up(x))
        return self.down(h + ((4 * h).round() / 4 - h).detach())


def test_a_straight_through_estimator_is_healthy():
    assert [] == said(cr.Setup(Quantised(), class_loss, [points()]))


class Hidden(nn.Module):
    """Keeps its teacher in a list, so that it is no part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = MLP(), [MLP()]

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            aim = self.teacher[0](x)
        return F.mse_loss(self.student(x), aim)


def test_a_teacher_hidden_in_a_list_is_healthy():
    model = Hidden()
    optimizer = torch.optim.Adam(model.parameters())

    assert [] == said(cr.Setup(model, lambda m, x: m(x), [torch.randn(4, 5)], optimizer))


def test_a_zero_initialised_branch_is_healthy():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.branch, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.up(x))
            return self.head(h + self.gate * torch.tanh(self.branch(h)))

    assert [] == said(cr.Setup(Gated(), class_loss, [points()]))


def test_an_auxiliary_term_minus_its_own_value_is_healthy():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        out = model(batch[0])
        auxiliary = out.square().mean()
        return F.cross_entropy(out, batch[1]) + auxiliary - auxiliary.detach()

    assert [] == said(cr.Setup(MLP(), loss, [points()]))


def test_a_loss_with_parameters_of_its_own_is_healthy():
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return F.cross_entropy(model(batch[0]) * self.scale, batch[1])

    model, loss = MLP(), Weighted()
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()])

    assert [] == said(cr.Setup(model, loss, [points()], optimizer))
    missing = said(cr.Setup(model, loss, [points()], torch.optim.Adam(model.parameters())), ("not-in-optimizer",))
    assert ["warning not-in-optimizer loss.scale"] == missing


def test_the_report_says_what_the_optimizer_holds():
    report = cr.check(optimizer_of_a_copy(True), only=("not-in-optimizer",))

    (finding,) = report.findings
    assert "error" == finding.severity
    assert "AdamW holds no parameter of this model: training moves other tensors" == finding.message
    assert 0 == finding.evidence["shared"]
    assert not report.ok


def test_checks_of_the_optimizer_say_that_there_is_none():
    report = cr.check(cr.Setup(MLP(), class_loss, [points()]), only=("not-in-optimizer", "twice-in-optimizer"))

    reasons = {name: not_run.reason for name, not_run in report.stages[0].not_run.items()}
    assert dict.fromkeys(("not-in-optimizer", "twice-in-optimizer"), "the set-up names no optimizer") == reasons
    assert () == report.findings


def test_nothing_of_the_users_is_changed():
    model = SmallGPT()
    optimizer = torch.optim.AdamW(model.parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    cr.check(cr.Setup(model, next_token_loss, [token_batch()], optimizer), only=CHECKS)

    assert torch.equal(drawn, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not optimizer.state


def test_two_optimizers_may_share_a_models_parameters():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    batch = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    optimizers = (torch.optim.Muon(matrices), torch.optim.AdamW(vectors))

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    only = ("not-in-optimizer", "twice-in-optimizer", "frozen-parameter", "update-formula")
    assert [] == list(cr.check(cr.Setup(model, loss, [batch], optimizers), only=only).findings)
    (finding,) = cr.check(cr.Setup(model, loss, [batch], optimizers[:1]), only=only[:1]).findings
    assert finding.message.startswith("Muon does not hold 2 parameters that the loss trains")
