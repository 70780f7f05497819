"""Losses of a prediction that is a number, one term for each: e = prediction − target.

Each takes prediction and target of one shape and returns the mean of the terms, a scalar. Sources: P. J. Huber, Robust
estimation of a location parameter, Ann. Math. Statist. 35 (1964) 73-101; R. Koenker and G. Bassett, Regression quantiles,
Econometrica 46 (1978) 33-50.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.losses.entry import Curve, Inputs, Loss, Naive, normal, require_same_shape


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """L = mean e²            dL/de = 2 e / n"""
    require_same_shape("mse", prediction, target)
    return F.mse_loss(prediction, target)


def mae(prediction: Tensor, target: Tensor) -> Tensor:
    """L = mean |e|            dL/de = sign(e) / n        (0 at e = 0)"""
    require_same_shape("mae", prediction, target)
    return F.l1_loss(prediction, target)


def huber(prediction: Tensor, target: Tensor, *, delta: float = 1.0) -> Tensor:
    """L = mean of e²/2 where |e| ≤ δ, else δ (|e| − δ/2)            dL/de = clamp(e, −δ, δ) / n

    delta  in units of the target: errors beyond it pull with the force δ, however large they are
    """
    require_same_shape("huber", prediction, target)
    return F.huber_loss(prediction, target, delta=delta)


def log_cosh(prediction: Tensor, target: Tensor) -> Tensor:
    """L = mean log cosh e            dL/de = tanh(e) / n

    Computed as e + softplus(−2e) − log 2, which is the same and does not overflow.
    """
    require_same_shape("log-cosh", prediction, target)
    error = prediction - target
    return (error + F.softplus(-2 * error) - math.log(2)).mean()


def quantile(prediction: Tensor, target: Tensor, *, level: float = 0.5) -> Tensor:
    """L = mean of (1 − q) e where e > 0, else −q e            dL/de = ([e > 0] − q) / n

    level  q in (0, 1): at the minimum a share q of the targets lies below the prediction
    """
    require_same_shape("quantile", prediction, target)
    error = prediction - target
    return torch.maximum((1 - level) * error, -level * error).mean()


def poisson(prediction: Tensor, target: Tensor) -> Tensor:
    """L = mean of eˣ − t x,  x = prediction = log of the rate, t = the count            dL/dx = (eˣ − t) / n

    The negative log likelihood of a Poisson distribution without log t!, which no weight can change.
    """
    require_same_shape("poisson", prediction, target)
    return F.poisson_nll_loss(prediction, target, log_input=True)


# --- the catalogue's part -----------------------------------------------------------------------------------------------


def _draw(generator: torch.Generator) -> Inputs:
    return {"prediction": normal(generator, 6), "target": 2 * normal(generator, 6)}


def _draw_counts(generator: torch.Generator) -> Inputs:
    log_rate = normal(generator, 6)
    return {"prediction": log_rate, "target": torch.poisson(log_rate.exp(), generator=generator)}


def _beside(target: float) -> Callable[[Tensor], Inputs]:
    return lambda x: {"prediction": x[None], "target": torch.full_like(x[None], target)}


def _one(prediction: float, target: float) -> Inputs:
    return {"prediction": torch.tensor([prediction]), "target": torch.tensor([target])}


ERROR = Curve("error = prediction − target", -4.0, 4.0, _beside(0.0))
LOG_RATE = Curve("prediction x = log rate, where 3 were counted", -2.0, 3.0, _beside(3.0))

_of_an_error = partial(Loss, task="regression", target="numbers", draw=_draw, curve=ERROR)
MSE = _of_an_error(
    function=mse,
    formula="e²",
    gradient="2 e",
    outliers="sensitive: the pull grows with the error, one target 10 off weighs as much as 100 that are 1 off",
    choose="errors are about normal; you want the mean; the default for regression",
    avoid="a few targets are far off, or wrong; the targets span orders of magnitude (take their logarithm)",
)
MAE = _of_an_error(
    function=mae,
    formula="|e|",
    gradient="sign(e)",
    outliers="robust: every error pulls with the force 1, up to half of the targets may be arbitrary",
    choose="many outliers, heavy tails; you want the median",
    avoid="you want the mean of a skewed target; the pull does not fade at e = 0, so the last steps need a falling rate",
)
HUBER = _of_an_error(
    function=huber,
    formula="e²/2 if |e| ≤ δ, else δ (|e| − δ/2)",
    gradient="clamp(e, −δ, δ)",
    outliers="robust: errors beyond δ pull with the force δ and no more",
    choose="mostly normal errors with some outliers: smooth at 0 as mse, bounded as mae",
    avoid="δ cannot be put in the target's units; you want exactly the mean or the median",
)
LOG_COSH = _of_an_error(
    function=log_cosh,
    formula="log cosh e",
    gradient="tanh e",
    outliers="robust: about e²/2 near 0, |e| − log 2 far away",
    choose="as huber, and second derivatives are used: it is smooth everywhere",
    avoid="the targets' scale is not near 1: it has no δ; standardise them first",
    naive=Naive(
        form="log(cosh(e))",
        breaks="cosh overflows beyond |e| = 89 in float32: loss inf, gradient nan",
        function=lambda prediction, target: (prediction - target).cosh().log().mean(),
        at=lambda: _one(120.0, 0.0),
    ),
)
QUANTILE = _of_an_error(
    function=quantile,
    formula="max((1 − q) e, −q e)",
    gradient="[e > 0] − q",
    outliers="robust, as mae, of which it is half for q = 1/2",
    choose="too high and too low cost differently; intervals (one prediction for q = 0.05, one for 0.95)",
    avoid="you want the mean; few data beyond the quantile; predictions of two quantiles can cross",
)
POISSON = Loss(
    function=poisson,
    task="regression",
    target="counts",
    formula="eˣ − t x,  x = log rate",
    gradient="eˣ − t",
    outliers="moderate: the pull grows with the count, as for mse, but in units of the rate",
    choose="counts of events, 0 included; effects multiply",
    avoid="the variance is far above the mean (overdispersion); negative or bounded targets; logits above 88 overflow",
    draw=_draw_counts,
    curve=LOG_RATE,
    naive=Naive(
        form="λ − t log λ,  λ = eˣ",
        breaks="a rate below 1e-45 is 0 in float32: log 0 = −inf, and 0 · −inf = nan where nothing was counted",
        function=lambda prediction, target: (prediction.exp() - target * prediction.exp().log()).mean(),
        at=lambda: _one(-120.0, 0.0),
    ),
)
LOSSES = (MSE, MAE, HUBER, LOG_COSH, QUANTILE, POISSON)
