"""A loss of the user's own: each planted fault is found, each repaired twin and each loss of the catalogue is silent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from chainrule.api import check_loss
from chainrule.errors import ConfigError, SetupError
from chainrule.losses import CATALOGUE
from chainrule.losses.samples import untrained
from chainrule.preflight import known_checks


class HalfBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


def accuracy(prediction, target):
    return (prediction.argmax(1) != target).float().mean()


def rounded(prediction, target):
    return (prediction.round() - target).square().mean()


def half_a_backward(prediction, target):
    return HalfBackward.apply(prediction - target).mean()


def detached_factor(prediction, target):
    error = prediction - target
    return (error.detach().abs() * error.abs()).mean()


def log_of_a_sigmoid(prediction, target):
    p = torch.sigmoid(prediction)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def log_of_a_softmax(prediction, target):
    return F.nll_loss(torch.softmax(prediction, 1).log(), target)


def root_of_the_mean(prediction, target):
    return (prediction - target).square().mean().sqrt()


def share_of_the_variance(prediction, target):
    return (prediction - target).square().mean() / target.var()


def per_positive(prediction, target):
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="sum") / target.sum()


def in_millionths(prediction, target):
    return 1e6 * (prediction - target).square().mean()


def summed(prediction, target):
    return (prediction - target).square().sum()


def squared(prediction, target):
    return (prediction - target).square().mean()


def found(function, kind):
    return {finding.check: finding for finding in check_loss(function, *untrained(kind)).findings}


@pytest.mark.parametrize(
    ("function", "kind", "check", "severity", "words"),
    [
        (accuracy, "classes", "loss-without-gradient", "error", "autograd finds no way from this loss"),
        (rounded, "numbers", "loss-without-gradient", "error", "the gradient of this loss is 0 in every entry"),
        (half_a_backward, "numbers", "loss-wrong-gradient", "error", "is not its slope in 16 of 16 entries"),
        (detached_factor, "numbers", "loss-wrong-gradient", "error", "is not its slope in 16 of 16 entries"),
        (log_of_a_sigmoid, "binary", "loss-unstable", "error", "not finite at 4 edges"),
        (log_of_a_softmax, "classes", "loss-unstable", "error", "not finite at 4 edges"),
        (root_of_the_mean, "numbers", "loss-unstable", "error", "not finite at 1 edge"),
        (share_of_the_variance, "numbers", "loss-unstable", "error", "not finite at 2 edges"),
        (per_positive, "binary", "loss-unstable", "error", "not finite at 2 edges"),
        (in_millionths, "numbers", "loss-scale", "warning", "one example pulls at its prediction with"),
        (summed, "numbers", "loss-not-a-mean", "warning", "this loss is a sum over the examples"),
        (root_of_the_mean, "numbers", "loss-not-a-mean", "warning", "this loss is not a mean over the examples"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_a_planted_fault_is_found(function, kind, check, severity, words):
    finding = found(function, kind)[check]

    assert severity == finding.severity
    assert words in finding.message
    assert finding.source.file == __file__


@pytest.mark.parametrize("loss", [one for one in CATALOGUE if one.target != "other"], ids=lambda one: one.name)
def test_a_loss_of_the_catalogue_passes(loss):
    report = check_loss(loss.function, *untrained(loss.target))
    far = "predictions 1000 standard deviations too high"  # there the Poisson loss is e to the 1000 and rightly inf

    assert "pass" == report.verdict
    assert {"poisson": [[far]]}.get(loss.name, []) == [finding.evidence["edges"] for finding in report.findings]


def test_a_report_says_what_it_would_have_seen():
    report = check_loss(squared, *untrained("numbers"))

    assert report.ok
    assert "autograd = slope of the loss in 16 entries of the predictions, float64" == report.stages[0].summary
    assert report.stages[0].resolution <= 1e-6


def test_a_column_of_predictions_beside_a_row_of_targets_is_an_error():
    prediction, target = untrained("numbers")
    (finding,) = check_loss(squared, prediction[:, None], target).findings

    assert "loss-not-a-mean" == finding.check
    assert (
        "predictions (16, 1) and targets (16,) broadcast: every prediction is compared with every target"
        == finding.message
    )


def test_a_loss_in_float32_inside_is_not_accused_but_unresolved():
    report = check_loss(lambda prediction, target: squared(prediction.float(), target.float()), *untrained("numbers"))

    assert report.ok
    assert "unresolved" == report.verdict


def test_probabilities_are_looked_at_where_they_are_0_and_1():
    prediction, target = torch.rand(16, generator=torch.Generator().manual_seed(0)), untrained("binary")[1]

    def naive(p, t):
        return -(t * p.log() + (1 - t) * (1 - p).log()).mean()

    (finding,) = check_loss(naive, prediction, target).findings
    assert ["sure and right, probabilities 0 and 1", "sure and wrong, probabilities 0 and 1"] == finding.evidence[
        "edges"
    ]


def test_a_module_is_a_loss_too():
    assert check_loss(nn.HuberLoss(), *untrained("numbers"), where="huber").ok


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p, t: float((p - t).mean()), r"returned float .* expected a tensor of one number: leave out .item\(\)"),
        (
            lambda p, t: (p - t) ** 2,
            r"returned a tensor of shape \(16,\) .* expected one number: reduce it with .mean\(\)",
        ),
        (lambda p, t: p[99], r"raised IndexError for predictions \(16,\) and targets \(16,\): index 99"),
    ],
)
def test_a_function_that_is_no_loss_is_refused(function, words):
    with pytest.raises(SetupError, match=words):
        check_loss(function, *untrained("numbers"))


def test_nothing_of_the_callers_is_changed():
    prediction, target = untrained("numbers")
    before = prediction.clone(), target.clone(), torch.get_rng_state()

    def writes(p, t):
        p.data.zero_()
        t.zero_()
        return squared(p, t)

    check_loss(writes, prediction, target)
    assert torch.equal(before[0], prediction)
    assert torch.equal(before[1], target)
    assert torch.equal(before[2], torch.get_rng_state())
    assert prediction.grad is None


def test_a_check_of_a_loss_is_none_of_a_whole_setup():
    words = r"^loss-unstable examines a loss function by itself: chainrule losses FILE.py:function$"
    with pytest.raises(ConfigError, match=words):
        known_checks(["loss-unstable"])
