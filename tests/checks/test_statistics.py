"""Checks of data, losses and initial weights: one report in words, healthy look-alikes, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr
from chainrule.checks import statistics
from faults import statistics_faults as faults
from faults.hosts import (
    CNN,
    LM,
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

ALL = tuple(check.NAME for check in statistics.CHECKS)
JUDGES = tuple(check.NAME for check in statistics.JUDGES)


def spoken(built: cr.Setup, only: tuple[str, ...] = ALL) -> list[str]:
    return [f"{f.severity} {f.check} {f.where}" for f in cr.check(built, only=only).findings]


def test_a_softmax_before_cross_entropy_is_reported_in_words():
    finding = cr.check(faults.softmax_before_cross_entropy(True), only=("softmax-twice",)).findings[0]

    assert finding.severity == "error"
    assert finding.where == "classifier.1.softmax"
    assert finding.source.code == "return F.cross_entropy(model(batch[0]), batch[1])"
    assert finding.message == (
        "the output of softmax is taken for logits by cross_entropy_loss, which normalises once more"
    )
    assert finding.rows == (("lowest loss possible", "0.9048", "5 classes, logits within [0, 1]"),)
    assert finding.notes == (
        "Give cross_entropy_loss the raw outputs of the layer; take softmax only where probabilities are read.",
    )


def test_a_broadcast_says_both_shapes_and_what_became_of_them():
    finding = cr.check(faults.broadcast_by_hand(True), only=("shape-broadcast",)).findings[0]

    assert finding.message == (
        "shapes (32, 1) and (32,) broadcast to (32, 32): every prediction is compared with every target"
    )
    assert finding.rows[1] == ("compared", "(32, 32)", "1,024 entries")


def test_healthy_models_are_passed_in_silence():
    healthy = (
        setup(Net(), cross_entropy, classes()),
        setup(Net(1), squared, numbers()),
        setup(CNN(), cross_entropy, images()),
        setup(LM(), next_token, windows()),
        setup(Net(body=Body(nn.Tanh)), cross_entropy, classes()),
    )

    assert [[] for _ in healthy] == [spoken(built) for built in healthy]


def test_log_softmax_before_cross_entropy_changes_nothing_and_is_left_alone():
    assert [] == spoken(setup(Net(last=nn.LogSoftmax(1)), cross_entropy, classes()))


@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_an_initial_loss_a_fifth_above_ln_k_is_healthy(ratio):
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return next_token(model, batch)

    model = LM()
    with torch.no_grad():
        model.head.weight.mul_(ratio)

    assert [] == spoken(setup(model, loss, windows(8, 12)), ("initial-loss",))


def test_class_weights_and_label_smoothing_do_not_change_what_knowing_nothing_costs():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], weight=torch.arange(1.0, 6), label_smoothing=0.1)

    assert [] == spoken(setup(Net(), loss, classes()))


def test_one_hot_targets_a_mixup_and_padded_rows_are_probabilities():
    one_hot = F.one_hot(torch.arange(32) % 5, 5).float()
    mixed = 0.3 * one_hot + 0.7 * one_hot.roll(1, 0)
    mixed[4] = 0

    assert [] == spoken(setup(Net(), cross_entropy, (torch.randn(32, 12), mixed)), ("label-range",))


def test_pairwise_differences_that_are_meant_are_no_broadcast():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        score = model(batch[0])
        return ((score - score.T) - (batch[1][:, None] - batch[1][None, :])).square().mean()

    assert [] == spoken(setup(Net(1), loss, numbers()), ("shape-broadcast",))


def test_a_last_layer_of_zeros_is_not_taken_for_identical_units():
    model = Net()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)

    assert [] == spoken(setup(model, cross_entropy, classes()), ("identical-units",))


def test_a_low_rank_factorisation_is_not_a_forgotten_activation():
    body = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 4, bias=False), nn.Linear(4, 24), nn.ReLU())

    assert [] == spoken(setup(Net(body=body), cross_entropy, classes()), ("linear-stack",))


def test_depthwise_separable_convolutions_are_not_a_forgotten_activation():
    model = CNN()
    model.features[3] = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1))

    assert [] == spoken(setup(model, cross_entropy, images()), ("linear-stack",))


def test_raw_pixels_before_a_batch_norm_are_scaled_by_it():
    x, labels = images()
    model = CNN()
    model.features[0] = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))

    assert [] == spoken(setup(model, cross_entropy, (x.sigmoid() * 255, labels)), ("unscaled-inputs",))


def test_a_generator_that_wants_a_high_loss_of_its_critic_is_not_accused():
    critic = Body().requires_grad_(False)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        score = critic(model(batch[0])).mean(1)
        return -F.binary_cross_entropy_with_logits(score, torch.zeros_like(score))

    assert [] == spoken(setup(Net(12), loss, numbers()), ("flipped-sign",))


def test_a_frozen_batch_norm_with_measured_statistics_is_left_alone():
    model = CNN()
    model.features[1] = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
    model(images()[0])
    model.features[1][0].eval()

    assert [] == spoken(setup(model, cross_entropy, images()), ("idle-batch-norm",))


def test_an_optimizer_that_is_asked_to_maximize_may_go_uphill():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, maximize=True)

    assert [] == spoken(setup(model, cross_entropy, classes(), optimizer=optimizer), JUDGES)


@pytest.mark.parametrize("rule", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_the_first_step_of_every_usual_optimizer_goes_downhill(rule):
    model = Net()
    built = setup(model, cross_entropy, classes(), optimizer=rule(model.parameters(), lr=0.01, weight_decay=0.1))

    assert [] == spoken(built, JUDGES)


def test_a_model_without_layers_labels_or_activations_only_tells_why_nothing_was_checked():
    model = nn.ParameterList([nn.Parameter(torch.ones(3))])
    report = cr.check(cr.Setup(model, lambda m, b: (m[0] * b).sum(), [torch.ones(3)]), only=ALL)

    assert [] == list(report.findings)
    assert "the model has no batch norm with running statistics" == report.stages[-1].not_run["idle-batch-norm"].reason


@pytest.mark.parametrize(
    ("built", "name"),
    [
        (faults.minus_an_auxiliary_loss, "flipped-sign"),
        (faults.too_strong_penalty, "penalty-dominates"),
        (faults.deep_sigmoids, "depth-profile"),
    ],
    ids=["flipped-sign", "penalty-dominates", "depth-profile"],
)
def test_it_is_found_too_after_the_stage_that_frees_adjoints(built, name):
    findings = cr.check(built(True), only=("engine-disagreement", name)).findings

    assert name in [finding.check for finding in findings]


class Squeezed(nn.Module):
    """A gate computed by a layer of two units, both of them dead, beside a path that does not need it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.down, self.up = Body(), nn.Linear(24, 2), nn.Linear(2, 24)
        nn.init.constant_(self.down.bias, -20.0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return h * torch.sigmoid(self.up(torch.relu(self.down(h))))


def test_a_narrow_layer_that_is_dead_by_chance_matters_only_if_nothing_goes_round_it():
    bypassed, only_way = Net(body=Squeezed()), Net(1, last=nn.ReLU())
    nn.init.constant_(only_way.head.bias, -20.0)

    assert [] == spoken(setup(bypassed, cross_entropy, classes()), ("dead-units",))
    assert ["error dead-units last.relu"] == spoken(setup(only_way, squared, numbers()), ("dead-units",))


def test_a_narrow_layer_that_is_dead_for_a_few_examples_may_be_so_by_chance():
    few = Net(1, last=nn.ReLU())
    nn.init.constant_(few.head.bias, -20.0)
    x, y = numbers()

    assert [] == spoken(setup(few, squared, (x[:15], y[:15])), ("dead-units",))
