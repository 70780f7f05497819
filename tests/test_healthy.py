"""False alarms: on healthy models, and on healthy set-ups that look faulty, no check finds an error and hardly one warns.

Each model of the zoo has one of the usual optimizers. The gradient's stages are proved on the zoo in test_zoo.py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from torch import optim

import chainrule as cr
from chainrule.checks.groups import CHECKS, FAILED, JUDGES
from zoo.case import ZooModel
from zoo.lookalikes import SETUPS, wasteful_gan
from zoo.models import OWN

try:
    from zoo.external import EXTERNAL
    from zoo.hf import FURTHER, HF
except ModuleNotFoundError:  # CI installs the extras, and there it is an error
    if "CI" in os.environ:
        raise
    EXTERNAL = HF = FURTHER = ()

EVERY = tuple(sorted({check.NAME for table in (CHECKS, JUDGES) for checks in table.values() for check in checks}))
OPTIMIZERS: tuple[Callable[..., optim.Optimizer], ...] = (
    lambda parameters: optim.AdamW(parameters, lr=1e-3),
    lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9),
    lambda parameters: optim.Adam(parameters, lr=1e-3),
    lambda parameters: optim.AdamW(parameters, lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95)),
    lambda parameters: optim.RMSprop(parameters, lr=1e-3),
    lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    lambda parameters: optim.Adagrad(parameters, lr=0.01),
    lambda parameters: optim.Adafactor(parameters),
)
ZOO = tuple(zip((*OWN, *HF, *FURTHER, *EXTERNAL), itertools.cycle(OPTIMIZERS)))  # the optimizers go round
# What is said of a healthy model is an alarm, be it true: two unused parameters, a mean over the batch, embeddings of
# size 1 that are the head's weights too.
WARNED = {
    "frozen": ["warning dead-parameter 0.unused"],
    "in_place": ["warning batch-leak InPlace"],
    "tied_lm": ["warning initial-loss cross_entropy_loss"],
}


def said(report: cr.Report) -> list[str]:
    """The findings, and the probes that the model did not bear; what is only noted is no alarm."""
    refused = {check: why.reason for stage in report.stages for check, why in stage.not_run.items()}
    return [
        *(f"{f.severity} {f.check} {f.where}" for f in report.findings if f.severity != "info"),
        *(f"error {check} {reason}" for check, reason in refused.items() if reason.startswith(FAILED)),
    ]


def test_the_zoo_has_at_least_eighty_models_and_at_most_one_in_ten_is_warned_of():
    if not EXTERNAL:
        pytest.skip("the models of other libraries need the extras: pip install .[hf,zoo]")
    assert len(ZOO) >= 80
    assert len({model.name for model, _ in ZOO}) == len(ZOO)
    assert sum(map(len, WARNED.values())) <= len(ZOO) / 10
    assert [] == [line for lines in WARNED.values() for line in lines if not line.startswith("warning")]


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize(("model", "optimizer"), ZOO, ids=[model.name for model, _ in ZOO])
def test_no_check_accuses_a_healthy_model(model: ZooModel, optimizer: Callable[..., optim.Optimizer]):
    network, loss, batch = model.build()
    trained = optimizer([p for p in network.parameters() if p.requires_grad])

    report = cr.check(cr.Setup(network, loss, [batch], trained), only=EVERY)

    assert WARNED.get(model.name, []) == said(report), str(report)


@pytest.mark.parametrize(
    "build", [build for _, build in SETUPS], ids=[f"{row} {build.__name__}" for row, build in SETUPS]
)
def test_a_healthy_lookalike_passes_every_check(build: Callable[[], cr.Setup]):
    assert [] == said(cr.check(build()))


def test_a_critic_that_trains_without_a_detach_is_only_wasteful():
    with cr.watch() as watch:
        wasteful_gan()

    assert "pass" == watch.report.verdict
    assert [] == [line for line in said(watch.report) if line.startswith("error")]
