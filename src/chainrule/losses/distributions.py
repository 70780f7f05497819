"""Losses between distributions: a model's, given by logits or log probabilities, and the one that it is to match.

N distributions, C outcomes. Each returns the mean over distributions, a scalar.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.losses.classification import IGNORED, RIGHT_CLASS
from chainrule.losses.entry import Curve, Inputs, Loss, Naive, integers, normal, require_same_shape


def kl_divergence(prediction: Tensor, target: Tensor) -> Tensor:
    """L = Σ_c y_c (log y_c − log p_c),  p = softmax(prediction)            dL/dprediction = (p − y) / n

    prediction  logits (..., C)
    target      probabilities y (..., C); where y is 0 the term is 0

    The cross entropy less the entropy of y: 0 if p = y, else above 0, and not symmetric. Divided by the number of
    distributions; PyTorch's reduction "mean" divides by C as well.
    """
    require_same_shape("kl-divergence", prediction, target)
    log_p_NC = F.log_softmax(prediction.reshape(-1, prediction.shape[-1]), dim=-1)
    return F.kl_div(log_p_NC, target.reshape(log_p_NC.shape), reduction="sum") / len(log_p_NC)


def negative_log_likelihood(prediction: Tensor, target: Tensor, *, ignored: int = IGNORED) -> Tensor:
    """L = −log p_t            dL/dlog p_c = −[c = t] / n

    prediction  log probabilities (..., C), of log_softmax and not of log(softmax)
    target      outcomes (...) of integers
    ignored     outcome that does not count
    """
    log_p_NC, target_N = prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1)
    require_same_shape("negative-log-likelihood", log_p_NC[:, 0], target_N)
    total = F.nll_loss(log_p_NC, target_N, ignore_index=ignored, reduction="sum")
    return total / (target_N != ignored).sum().clamp_min(1)


# --- the catalogue's part -----------------------------------------------------------------------------------------------


def _draw_distributions(generator: torch.Generator) -> Inputs:
    return {"prediction": normal(generator, 4, 3), "target": torch.softmax(2 * normal(generator, 4, 3), dim=-1)}


def _draw_outcomes(generator: torch.Generator) -> Inputs:
    return {"prediction": torch.log_softmax(normal(generator, 4, 3), dim=-1), "target": integers(generator, 3, 4)}


def _of_two(x: Tensor) -> Inputs:
    target = torch.tensor([[0.7, 0.3]], dtype=x.dtype)
    return {"prediction": torch.stack([x, 0 * x])[None], "target": target}


def _one_outcome(x: Tensor) -> Inputs:
    logits = RIGHT_CLASS.at(x)
    return {**logits, "prediction": torch.log_softmax(logits["prediction"], dim=-1)}


def _certain() -> Inputs:
    return {"prediction": torch.tensor([[0.0, 1.0]]), "target": torch.tensor([[0.0, 1.0]])}


def naive_kl(prediction: Tensor, target: Tensor) -> Tensor:
    """Σ y log(y / p) of a softmax that was computed first."""
    return (target * (target / torch.softmax(prediction, dim=-1)).log()).sum(dim=-1).mean()


KL_DIVERGENCE = Loss(
    function=kl_divergence,
    task="distributions",
    formula="Σ_c y_c (log y_c − log p_c),  p = softmax(x)",
    gradient="p − y",
    outliers="sensitive where y is above 0 and p near 0, insensitive to p where y is 0",
    choose="the target is a distribution: distillation from a teacher, a prior",
    avoid="the target is one class (cross-entropy: the same gradient); p must not spread over all of y (take KL the other way)",
    draw=_draw_distributions,
    curve=Curve("logit of the outcome that has y = 0.7; the other has 0", -6.0, 6.0, _of_two),
    naive=Naive(
        form="Σ y log(y / p),  p = softmax(x)",
        breaks="an outcome with y = 0 gives 0 · log 0 = 0 · −inf = nan",
        function=naive_kl,
        at=_certain,
    ),
)
NEGATIVE_LOG_LIKELIHOOD = Loss(
    function=negative_log_likelihood,
    task="distributions",
    target="classes",
    prediction="log probabilities",
    formula="−log p_t",
    gradient="of log p_c: −[c = t]",
    outliers="sensitive: an outcome that was held impossible costs without bound",
    choose="the model gives log probabilities itself: a mixture, a flow, log_softmax for other uses, too",
    avoid="the model gives logits (cross-entropy does both at once and is as stable)",
    draw=_draw_outcomes,
    curve=replace(RIGHT_CLASS, at=_one_outcome),
    naive=Naive(
        form="−log(p_t), p_t from the exponential of what was given",
        breaks="exp of a log probability below −104 is 0 in float32: log 0 = −inf",
        function=lambda prediction, target: -prediction.exp().gather(1, target[:, None]).log().mean(),
        at=lambda: {"prediction": torch.tensor([[-150.0, 0.0]]), "target": torch.tensor([0])},
    ),
)
LOSSES = (KL_DIVERGENCE, NEGATIVE_LOG_LIKELIHOOD)
