"""Checks of floating-point hazards: messages in words, healthy look-alikes, and losses that are nan at once."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import chainrule as cr
from chainrule.checks import numeric
from chainrule.checks.numeric import loss_not_finite
from chainrule.errors import SetupError
from chainrule.finding import NotRun
from chainrule.watch.observed import Event, Observed
from faults import numeric_faults as faults
from faults.hosts import CNN, LM, Block, Net, classes, cross_entropy, images, next_token, setup, windows

ALL = tuple(check.NAME for check in numeric.CHECKS)


def spoken(built: cr.Setup, only: tuple[str, ...] = ALL) -> list[str]:
    return [f"{f.severity} {f.check} {f.where}" for f in cr.check(built, only=only).findings]


def test_a_branch_not_taken_is_explained():
    finding = cr.check(faults.branch_not_taken(True), only=("nan-gradient",)).findings[0]

    assert finding.severity == "error"
    assert finding.source.code == "return torch.where(x > 0, inside.sqrt(), 0.0)"
    assert finding.message.startswith("the derivative of sqrt is inf or nan here, and so is the gradient of")
    assert finding.rows[1] == (
        "gradient that arrives there",
        "0",
        "a branch that where() or a mask does not take: 0 · inf is nan",
    )
    assert finding.notes[0] == (
        "Make the argument harmless before the formula (clamp it, or where() on the input); where() after it is too late."
    )


@pytest.mark.parametrize(
    "built",
    [
        lambda: setup(Net(), cross_entropy, classes()),
        lambda: setup(CNN(), cross_entropy, images()),
        lambda: setup(LM(), next_token, windows()),
        lambda: setup(Net().bfloat16(), cross_entropy, (classes()[0].bfloat16(), classes()[1])),
    ],
    ids=["mlp", "cnn", "transformer", "bfloat16"],
)
def test_healthy_models_are_passed_in_silence(built):
    assert [] == spoken(built())


def test_a_norm_at_zero_has_a_gradient_and_is_left_alone():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model, batch) + 0.1 * (model.head.bias * 0).norm()

    assert [] == spoken(setup(Net(), loss, classes()))


class PaddedRow(Block):
    """The last position of the first row is padding, and as a query attends to nothing."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = torch.ones(q.shape[0], 1, q.shape[2], q.shape[2], dtype=torch.bool).tril()
        seen[0, :, -1] = False
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


@pytest.mark.parametrize("used", [False, True], ids=["ignored", "in the loss"])
def test_a_row_that_attends_to_nothing_matters_only_if_the_loss_reads_it(used):
    ids, targets = windows()
    targets[0, -1] = targets[0, -1] if used else -100

    assert used == bool(spoken(setup(LM(block=PaddedRow), next_token, (ids, targets)), ("fully-masked-row",)))


def test_integers_that_bfloat16_holds_exactly_are_left_alone():
    model = faults.Waves()
    model.dtype = torch.bfloat16

    assert [] == spoken(setup(model, next_token, windows(1, 200)), ("low-precision-integers",))


def test_a_head_in_float32_after_autocast_is_common_and_right():
    class Mixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                h = self.body(x)
            return self.head(h.float())

    assert [] == spoken(setup(Mixed(), cross_entropy, classes()), ("autocast-gap",))


def test_a_nan_that_the_model_deals_with_is_its_own_matter():
    x, labels = classes()
    x[2, 3] = math.nan

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model, (batch[0].nan_to_num(0.0), batch[1]))

    assert [] == spoken(cr.Setup(Net(), loss, [classes(), (x, labels)]), ("batch-not-finite",))


def test_a_batch_of_only_ignored_labels_is_refused_in_words():
    ids, targets = windows()

    with pytest.raises(SetupError, match=r"cross_entropy_loss .*: every label is -100, which the loss ignores"):
        cr.check(setup(LM(), next_token, (ids, torch.full_like(targets, -100))))


def test_log_of_zero_is_refused_with_the_number_of_zeros():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return -(model(batch[0]) * 1000).softmax(-1).gather(1, batch[1][:, None]).log().mean()

    with pytest.raises(SetupError, match=r"first appears in log .*of its inputs lie outside its domain; clamp them"):
        cr.check(setup(Net(), loss, classes()))


def test_exp_of_too_much_is_refused_in_words():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (1 + (model(batch[0]) * 10_000).exp()).log().mean()

    with pytest.raises(SetupError, match=r"exp .*: its input is too large; subtract the maximum first"):
        cr.check(setup(Net(), loss, classes()))


def backward(loss: float, *, scaled: bool = False) -> Event:
    return Event("backward", 0, numbers={"loss": loss, "finite": math.isfinite(loss), "scaled": scaled})


def test_a_scaled_loss_may_overflow_while_the_scale_is_searched_for():
    events = [backward(math.inf, scaled=True), backward(math.inf, scaled=True), backward(3e4, scaled=True)]

    assert [] == loss_not_finite.judge(Observed(events))


def test_a_scaled_loss_that_never_comes_back_is_an_error():
    findings = loss_not_finite.judge(Observed([backward(math.nan, scaled=True)] * 5))

    assert ["the loss is nan before update 1"] == [finding.message for finding in findings]


def test_a_loop_without_a_loss_is_not_judged():
    assert isinstance(loss_not_finite.judge(Observed()), NotRun)


@pytest.mark.parametrize(
    ("built", "name"),
    [(faults.a_row_that_sees_nothing, "fully-masked-row"), (faults.gradients_below_float16, "gradient-underflow")],
    ids=["fully-masked-row", "gradient-underflow"],
)
def test_it_is_found_too_after_the_stage_that_frees_adjoints(built, name):
    assert name in [finding.check for finding in cr.check(built(True), only=("engine-disagreement", name)).findings]
