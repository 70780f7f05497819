"""Checks of two ways that must agree: messages in words, losses that are right in their own way, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr
from chainrule.checks import equivalence
from chainrule.checks.equivalence import compiled_eager
from chainrule.checks.equivalence.rows import rows_of, strided, taken
from faults import equivalence_faults as faults
from faults.hosts import (
    CNN,
    LM,
    Block,
    Body,
    Net,
    classes,
    cross_entropy,
    images,
    next_token,
    numbers,
    setup,
    squared,
    windows,
)

ALL = tuple(check.NAME for check in equivalence.CHECKS)


def spoken(built: cr.Setup, only: tuple[str, ...] = ALL) -> list[str]:
    return [f"{f.severity} {f.check} {f.where}" for f in cr.check(built, only=only).findings]


def reason(built: cr.Setup, only: str) -> str:
    """Why the check could not be made."""
    return cr.check(built, only=(only,)).stages[-1].not_run[only].reason


def test_a_mean_of_means_is_reported_with_the_weights():
    finding = cr.check(faults.mean_of_token_means(True), only=("ragged-accumulation",)).findings[0]

    assert finding.severity == "error"
    assert finding.message.startswith("accumulating micro-batches gives another gradient than the full batch: ")
    assert [9, 2, 7, 3] == [round(float(share) * 21) for share in finding.rows[0][1].split(", ")]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_equal_rows_accumulate_rightly(accumulate):
    assert [] == spoken(setup(LM(), next_token, windows(), accumulate=accumulate))


def test_without_accumulation_a_mean_over_tokens_is_right():
    assert "the set-up does not accumulate" in reason(
        setup(LM(), next_token, faults.ragged_windows()), "ragged-accumulation"
    )


def test_a_step_of_ones_own_may_weigh_the_parts_itself():
    built = faults.mean_of_token_means(True)
    own = cr.Setup(built.model, built.loss, built.batches, step=lambda model, batch, optimizer: None, accumulate=4)

    assert ["warning ragged-accumulation loss"] == spoken(own, ("ragged-accumulation",))


def in_batch_negatives(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    scores = model(batch[0]) @ batch[1].T
    return F.cross_entropy(scores, torch.arange(len(scores)))


def test_a_contrastive_loss_is_neither_accused_nor_cleared():
    built = setup(Net(4), in_batch_negatives, (torch.randn(9, 12), torch.randn(9, 4)), accumulate=2)

    assert [] == spoken(built)
    assert "depends on the other examples" in reason(built, "ragged-accumulation")


def test_dropout_batch_norm_and_spectral_norm_have_no_gap_between_train_and_eval():
    model = CNN()
    model.features[1] = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3))
    model.features[3] = nn.utils.parametrizations.spectral_norm(model.features[3])
    model.classifier = nn.Sequential(nn.Dropout(0.2), model.classifier)

    assert [] == spoken(setup(model, cross_entropy, images(), accumulate=2))


def test_a_sample_in_eval_is_no_dropout():
    class Sampled(Body):
        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            return h + 0.1 * torch.randn_like(h)

    assert [] == spoken(setup(Net(body=Sampled()), cross_entropy, classes()))


def test_a_sum_doubles_with_the_batch_and_is_left_alone():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0]).squeeze(-1), batch[1], reduction="sum")

    assert [] == spoken(setup(Net(1), loss, numbers(), accumulate=2))


def test_a_model_that_refuses_a_layout_is_not_silent_and_passes():
    class Viewed(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.view(-1).view(x.shape))

    assert [] == spoken(setup(Net(body=Viewed()), cross_entropy, classes()), ("memory-layout",))


def test_a_class_weight_in_the_batch_is_not_taken_for_rows():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], weight=batch[2])

    x, labels = classes(5)

    assert [] == spoken(setup(Net(), loss, (x, labels, torch.arange(1.0, 6))))


def test_an_optimizer_that_steps_inside_backward_is_not_judged():
    model = Net()
    for parameter in model.parameters():
        optimizer = torch.optim.SGD([parameter], lr=0.1)

        def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.step()
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(step)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    assert "backward itself changes parameters" in reason(setup(model, cross_entropy, classes()), "lost-accumulation")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_gradients_hooks_and_modes_of_the_user_are_as_before():
    model = LM(block=lambda width: Block(width, dropout=0.1))
    next_token(model, windows()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    built = setup(model, next_token, windows(), accumulate=2)
    state = torch.get_rng_state()
    cr.check(built, only=ALL)

    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(gradients[name], p.grad) for name, p in model.named_parameters() if name in gradients)


def test_sparse_gradients_are_read_like_dense_ones():
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(17, 12, sparse=True), Net()

        def forward(self, ids_BT: Tensor) -> Tensor:
            return self.head(self.embed(ids_BT).mean(1))

    built = setup(Bag(), cross_entropy, (windows(8)[0], torch.arange(8) % 5), accumulate=2)

    assert [] == spoken(built, (*ALL, "nan-gradient"))


def test_time_may_come_first():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6), nn.Linear(6, 1)

        def forward(self, x_TBD: Tensor) -> Tensor:
            return self.head(self.lstm(x_TBD)[0])

    assert [] == spoken(setup(Recurrent(), squared_columns, (torch.randn(9, 5, 4), torch.randn(9, 5))))


def squared_columns(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]).squeeze(-1), batch[1])


def test_a_state_that_a_recurrent_network_keeps_is_only_noted():
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 1)
            self.state: Tensor | None = None

        def forward(self, x_BTD: Tensor) -> Tensor:
            y_BTD, state = self.gru(x_BTD, self.state)
            self.state = state.detach()
            return self.head(y_BTD)

    built = setup(Kept(), squared_columns, (torch.randn(4, 5, 4), torch.randn(4, 5)))

    assert ["info state-between-calls Kept"] == spoken(built, ("state-between-calls",))


def test_noise_that_follows_the_layout_is_no_fault():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.mse_loss(model(batch[0] + torch.randn_like(batch[0])).squeeze(-1), batch[1])

    assert [] == spoken(setup(Net(1), loss, numbers()))


class Approximate(nn.Module):
    """Another slope, but only in the compiler's hands."""

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(1.5 * x)
        return x * (gate.detach() if torch.compiler.is_compiling() else gate)


@pytest.mark.parametrize(("act", "found"), [(Approximate, 1), (nn.SiLU, 0)], ids=["another slope", "the same"])
def test_a_compiled_model_with_another_gradient_is_found(act, found, monkeypatch):
    monkeypatch.setattr(compiled_eager, "BACKEND", "aot_eager")  # inductor compiles C++ for a minute

    assert found == len(spoken(setup(Net(1, body=Body(act)), squared, numbers(8)), ("compiled-eager",)))


def test_the_rows_of_a_recording_are_left_as_they_are():
    class Recorded:
        fixed_shapes = True

        def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return cross_entropy(model, batch)

    report = cr.check(setup(Net(), Recorded(), classes(), accumulate=2), only=ALL)
    kept = [name for name, why in report.stages[-1].not_run.items() if "recorded" in why.reason]

    assert [] == list(report.findings)
    assert ["ragged-accumulation", "duplicated-batch", "batch-order"] == kept


def test_rows_are_the_axis_that_all_tensors_share():
    x = torch.arange(12.0).view(4, 3)

    assert 4 == rows_of((x, torch.ones(4)))
    assert rows_of((x, torch.ones(5))) is None
    assert rows_of((x, torch.tensor(1.0))) is None
    assert torch.equal(x[[2, 0]], taken({"x": x}, torch.tensor([2, 0]))["x"])
    assert torch.equal(x, strided(x))
    assert not strided(x).is_contiguous()
