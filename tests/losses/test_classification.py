"""Classification losses against torch, scikit-learn and their own formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from chainrule.errors import SetupError
from chainrule.losses.classification import binary_focal, cross_entropy, focal, hinge, log_loss

seeds = st.integers(0, 10_000)


def logits_and_classes(seed=0, shape=(6, 4), spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits, torch.randint(shape[-1], shape[:-1], generator=generator)


def logits_and_labels(seed=0, count=20):
    logits, labels = logits_and_classes(seed, (count, 2))
    return logits[:, 0], labels


def gradient(loss, logits, target, **settings):
    x = logits.clone().requires_grad_()
    loss(x, target, **settings).backward()
    return x.grad


# --- cross entropy ------------------------------------------------------------------------------------------------------


def test_cross_entropy_is_scikit_learns_log_loss():
    logits, classes = logits_and_classes()
    expected = metrics.log_loss(classes.numpy(), torch.softmax(logits, 1).numpy(), labels=range(4))

    assert expected == pytest.approx(float(cross_entropy(logits, classes)), rel=1e-12)


@given(seeds)
def test_its_gradient_is_p_minus_y(seed):
    logits, classes = logits_and_classes(seed)
    expected = (torch.softmax(logits, 1) - F.one_hot(classes, 4)) / 6

    torch.testing.assert_close(gradient(cross_entropy, logits, classes), expected)


@given(seeds)
def test_with_soft_targets_too(seed):
    logits, _ = logits_and_classes(seed)
    soft = torch.softmax(logits_and_classes(seed + 1)[0], 1)

    torch.testing.assert_close(gradient(cross_entropy, logits, soft), (torch.softmax(logits, 1) - soft) / 6)


@given(seeds)
def test_a_class_is_the_distribution_that_is_sure_of_it(seed):
    logits, classes = logits_and_classes(seed)

    torch.testing.assert_close(cross_entropy(logits, F.one_hot(classes, 4).double()), cross_entropy(logits, classes))


@given(seeds, st.floats(0, 0.9))
def test_smoothing_mixes_the_target_with_the_uniform_distribution(seed, smoothing):
    logits, classes = logits_and_classes(seed)
    mixed = (1 - smoothing) * F.one_hot(classes, 4) + smoothing / 4

    torch.testing.assert_close(cross_entropy(logits, mixed), cross_entropy(logits, classes, smoothing=smoothing))


@given(seeds)
def test_weights_smoothing_and_ignored_targets_are_torchs(seed):
    logits, classes = logits_and_classes(seed, (2, 5, 4))
    classes[0, :2] = -100
    weight = torch.tensor([1.0, 0.2, 3.0, 0.5], dtype=torch.float64)
    expected = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), weight, label_smoothing=0.1)

    torch.testing.assert_close(cross_entropy(logits, classes, weight=weight, smoothing=0.1), expected)


def test_a_batch_of_ignored_targets_only_has_loss_and_gradient_zero_where_torchs_is_nan():
    logits, _ = logits_and_classes()
    ignored = torch.full((6,), -100)

    assert math.isnan(F.cross_entropy(logits, ignored))
    assert 0 == cross_entropy(logits, ignored)
    assert 0 == gradient(cross_entropy, logits, ignored).abs().max()


@given(seeds, st.floats(-1e3, 1e3))
def test_a_shift_of_all_logits_changes_nothing(seed, shift):
    logits, classes = logits_and_classes(seed)

    torch.testing.assert_close(
        cross_entropy(logits + shift, classes), cross_entropy(logits, classes), rtol=1e-9, atol=1e-9
    )


def test_targets_of_another_count_are_refused():
    with pytest.raises(SetupError, match=r"predictions of shape \(6,\) and targets of shape \(5,\)"):
        cross_entropy(*(x[: 6 - i] for i, x in enumerate(logits_and_classes())))


# --- two classes --------------------------------------------------------------------------------------------------------


def test_the_binary_log_loss_is_scikit_learns():
    logits, labels = logits_and_labels()
    expected = metrics.log_loss(labels.numpy(), torch.sigmoid(logits).numpy())

    assert expected == pytest.approx(float(log_loss(logits, labels)), rel=1e-12)


@given(seeds)
def test_the_binary_log_loss_is_the_cross_entropy_of_the_logits_0_and_x(seed):
    logits, labels = logits_and_labels(seed)

    torch.testing.assert_close(log_loss(logits, labels), cross_entropy(torch.stack([0 * logits, logits], 1), labels))


@given(seeds, st.floats(0.1, 50))
def test_a_positive_weight_counts_positives_that_many_times(seed, weight):
    logits, labels = logits_and_labels(seed)
    terms = F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="none")
    expected = (terms * torch.where(labels == 1, weight, 1.0)).mean()

    torch.testing.assert_close(log_loss(logits, labels, positive_weight=weight), expected)


def test_hinge_is_scikit_learns():
    logits, labels = logits_and_labels()

    assert metrics.hinge_loss(2 * labels.numpy() - 1, logits.numpy()) == pytest.approx(
        float(hinge(logits, labels)), rel=1e-12
    )


# --- focal --------------------------------------------------------------------------------------------------------------


@given(seeds)
def test_focal_without_focus_is_the_cross_entropy(seed):
    logits, classes = logits_and_classes(seed)
    binary, labels = logits_and_labels(seed)

    torch.testing.assert_close(focal(logits, classes, gamma=0.0), cross_entropy(logits, classes))
    torch.testing.assert_close(2 * binary_focal(binary, labels, gamma=0.0, alpha=0.5), log_loss(binary, labels))


@given(seeds, st.sampled_from([1.0, 2.0, 3.5]))
def test_focals_gradient_is_that_of_the_page(seed, gamma):
    logits, classes = logits_and_classes(seed)
    p, y = torch.softmax(logits, 1), F.one_hot(classes, 4)
    right = (p * y).sum(1, keepdim=True)
    factor = (1 - right) ** gamma - gamma * right * (1 - right) ** (gamma - 1) * right.log()

    torch.testing.assert_close(gradient(focal, logits, classes, gamma=gamma), factor * (p - y) / 6)


@given(seeds, st.sampled_from([0.5, 1.0, 2.0]), st.floats(0.1, 0.9))
def test_binary_focals_gradient_is_that_of_the_page(seed, gamma, alpha):
    logits, labels = logits_and_labels(seed)
    s = 2 * labels - 1
    p, weight = torch.sigmoid(s * logits), torch.where(labels == 1, alpha, 1 - alpha)
    expected = s * weight * (1 - p) ** gamma * (gamma * p * p.log() + p - 1) / 20

    torch.testing.assert_close(gradient(binary_focal, logits, labels, gamma=gamma, alpha=alpha), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_an_example_that_is_right_beyond_doubt_has_a_finite_gradient(gamma):
    logits, labels = torch.tensor([200.0, -200.0]), torch.tensor([1, 0])

    assert bool(gradient(binary_focal, logits, labels, gamma=gamma).isfinite().all())
