"""What a short training says, and that nothing of it is left in the user's model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from chainrule.checks.search.learning_rate_range import HIGHEST, LOWEST, read
from chainrule.checks.search.training import trained
from faults.small_setups import batches, classifier, loss

OVERFIT, RANGE = "overfit-one-batch", "learning-rate-range"


def setup_with(make=lambda p: torch.optim.Adam(p, lr=1e-2), own_loss=loss, model=None):
    model = model or classifier()
    return cr.Setup(model, own_loss, batches(), make(model.parameters()))


def rates(count=100):
    return [LOWEST * (HIGHEST / LOWEST) ** (t / (count - 1)) for t in range(count)]


def test_a_range_is_read_from_the_losses():
    swept = rates()
    losses = [1.0 if rate < 1e-4 else 0.5 if rate < 0.1 else 3.0 for rate in swept]
    found = read(swept, losses)

    assert 1e-4 <= found.falls < 2e-4
    assert found.diverges < 0.5
    assert found.recommended <= found.diverges / 3


def test_a_batch_learnt_by_heart_does_not_recommend_the_end_of_the_sweep():
    swept = rates()
    found = read(swept, [1.0 if rate < 1e-3 else 0.01 for rate in swept])

    assert 1e-3 <= found.recommended < 3e-3
    assert "where half of the fall is done" == found.reason


def test_a_loss_that_never_falls_recommends_nothing_it_has_not_seen():
    found = read(rates(), [1.0] * 100)

    assert found.falls is None
    assert found.diverges is None


def test_a_range_that_ends_in_nan_is_read_up_to_there():
    found = read(rates(), [1.0] * 50 + [0.5] * 20 + [float("nan")])

    assert rates()[68] <= found.diverges <= rates()[70]


def test_the_recommended_rate_comes_with_its_reason():
    (finding,) = cr.check(setup_with(), only=(RANGE,)).findings

    assert "info" == finding.severity
    assert "recommended rate for Adam: " in finding.message
    assert "(a tenth of " in finding.message or "(where half of the fall is done)" in finding.message
    assert ["the loss falls from", "lowest at", "diverges at", "recommended", "yours"] == [
        row[0] for row in finding.rows
    ]


def test_training_in_a_copy_changes_nothing():
    setup = setup_with(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    before = {name: tensor.clone() for name, tensor in setup.model.state_dict().items()}
    random = torch.get_rng_state()
    losses = trained(setup, [None] * 20, one_batch=True, adamw=None, seed=0)

    assert losses[-1] < losses[0] == 1.0
    assert all(torch.equal(before[name], tensor) for name, tensor in setup.model.state_dict().items())
    assert not setup.optimizer.state
    assert torch.equal(random, torch.get_rng_state())


def test_dropout_does_not_keep_a_batch_from_being_learnt():
    model = classifier()
    model.body.append(nn.Dropout(0.9))

    assert () == cr.check(setup_with(model=model), only=(OVERFIT,)).findings
    assert 0.9 == model.body[-1].p


def test_smoothed_labels_have_a_floor():
    def smoothed(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)

    assert () == cr.check(setup_with(own_loss=smoothed), only=(OVERFIT,)).findings


@pytest.mark.parametrize("name", [OVERFIT, RANGE])
def test_a_loss_below_zero_is_not_judged(name):
    def density(model, batch):
        return loss(model, batch) - 10.0

    assert (
        "the loss is not above zero"
        in cr.check(setup_with(own_loss=density), only=(name,)).stages[0].not_run[name].reason
    )


def test_a_model_too_small_to_learn_by_heart_is_not_judged():
    model = nn.Linear(8, 4)
    reason = (
        cr.check(cr.Setup(model, loss, batches(1, 64), torch.optim.SGD(model.parameters(), lr=0.1)), only=(OVERFIT,))
        .stages[0]
        .not_run[OVERFIT]
        .reason
    )

    assert "the model has 36 parameters, too few to learn" in reason


def test_a_dear_check_runs_only_when_it_is_named():
    report = cr.check(setup_with())

    assert not any("search" in stage.name for stage in report.stages)
