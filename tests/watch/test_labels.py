"""Labels of a watched loop do not pass through its model: they are known from the DataLoader; what cannot be known is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import chainrule as cr

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]


def loaded(x: Tensor, y: Tensor) -> Batches:
    return DataLoader(TensorDataset(x, y), 16)


def by_hand(x: Tensor, y: Tensor) -> Batches:
    return [(x[:16], y[:16])]


def watched(
    loss: Loss, check: str, batches: Callable[[Tensor, Tensor], Batches] = loaded, **given: Tensor
) -> cr.Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(16, 6)
    with cr.watch(only=(check,), tell=lambda _: None) as watch:
        for x_BK, y_B in batches(x, given.get("labels", x.sum(1))):
            optimizer.zero_grad()
            loss(model(x_BK), y_B).backward()
            optimizer.step()
    return watch.report


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).mean()


def hinge(prediction: Tensor, target: Tensor) -> Tensor:
    return F.relu(1 - prediction * target.sign()).mean()


def product(difference: Tensor) -> Tensor:
    return (difference * difference).mean()


def said(report: cr.Report) -> list[tuple[str, str]]:
    return [(finding.check, finding.severity) for finding in report.findings]


def why_not(report: cr.Report, check: str) -> str:
    return next((stage.not_run[check].reason for stage in report.stages if check in stage.not_run), "")


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("loss", [F.mse_loss, squared, hinge])
def test_labels_of_a_loader_that_broadcast_against_the_prediction_are_an_error_at_the_line_of_the_loss(loss):
    report = watched(lambda prediction, target: loss(prediction, target), "shape-broadcast")
    assert [("shape-broadcast", "error")] == said(report)
    finding = report.findings[0]
    assert "shapes (16, 1) and (16,) broadcast to (16, 16): every prediction is compared with every target" == (
        finding.message
    )
    assert finding.source is not None
    assert __file__ == finding.source.file


def test_labels_that_are_cast_and_flattened_are_still_those_of_the_loader():
    report = watched(lambda p, t: hinge(p, t.flatten()), "shape-broadcast", labels=torch.arange(16)[:, None] % 3)
    assert [("shape-broadcast", "error")] == said(report)


@pytest.mark.parametrize("loss", [squared, lambda p, t: (p - t).abs().sum(), lambda p, t: product(p - t)])
def test_sizes_of_differences_averaged_over_everything_are_an_error_with_labels_taken_by_hand_too(loss):
    assert [("shape-broadcast", "error")] == said(watched(loss, "shape-broadcast", by_hand))


def test_a_product_with_a_tensor_taken_by_hand_is_not_decided_and_the_report_says_so():
    report = watched(hinge, "shape-broadcast", by_hand)
    assert [] == said(report)
    reason = why_not(report, "shape-broadcast")
    assert "test_labels.py:" in reason
    assert reason.endswith(
        " broadcasts (16, 1) and (16,), and one of them was made before the model was called, by no DataLoader: it may be "
        "data or a constant of the loss"
    )


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, t: (p * torch.linspace(0, 1, 16)).logsumexp(1).mean() + squared(p[:, 0], t),  # a table made there
        lambda p, t: (-((p - torch.linspace(-1, 1, 16)) ** 2)).exp().mean() + squared(p[:, 0], t),  # radial basis
        lambda p, t: ((p - p.T) - (t[:, None] - t[None, :])).square().mean(),  # pairs that are meant
    ],
)
def test_tables_of_the_loss_and_pairs_that_are_meant_are_no_labels(loss):
    report = watched(loss, "shape-broadcast")
    assert [] == said(report)
    assert "" == why_not(report, "shape-broadcast")


def test_a_table_from_before_the_loop_is_not_accused():
    table = torch.linspace(-1, 1, 16)
    report = watched(lambda p, t: (-((p - table) ** 2)).exp().mean() + squared(p[:, 0], t), "shape-broadcast")
    assert [] == said(report)
    assert "it may be data or a constant of the loss" in why_not(report, "shape-broadcast")


def binary(prediction: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(100 * prediction.squeeze(1), target)


@pytest.mark.parametrize(
    ("loss", "check"),
    [
        (lambda p, t: binary(1e3 * p, (t > 0).float()), "initial-loss"),
        (lambda p, t: -binary(p, (t > 0).float()), "flipped-sign"),
        (lambda p, t: F.mse_loss(p.sigmoid().squeeze(1), 1e3 + t), "bounded-output"),
    ],
)
def test_checks_of_labels_know_those_of_a_loader_and_say_of_others_that_they_are_not_of_the_batch(loss, check):
    assert [check] == [name for name, _ in said(watched(loss, check))]
    assert "batch" in why_not(watched(loss, check, by_hand), check)


@pytest.mark.parametrize(("rows", "found"), [(64, ["constant-labels"]), (63, [])])
def test_constant_labels_of_a_script_take_sixty_four_as_only_one_batch_is_known(rows, found):
    def few(x: Tensor, _: Tensor) -> Batches:
        return DataLoader(TensorDataset(x.repeat(4, 1)[:rows], torch.ones(rows)), 64)

    report = watched(lambda p, t: F.binary_cross_entropy_with_logits(p.squeeze(1), t), "constant-labels", few)
    assert found == [finding.check for finding in report.findings]
