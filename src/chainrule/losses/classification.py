"""Losses of a prediction that is a logit, or one logit for each class: never probabilities, so that no log(0) arises.

N examples, C classes. Each returns the mean over examples, a scalar. Sources: C. Szegedy et al., Rethinking the Inception
architecture, CVPR 2016, section 7 (label smoothing); T.-Y. Lin et al., Focal loss for dense object detection, ICCV 2017,
section 3; C. Cortes and V. Vapnik, Support-vector networks, Machine Learning 20 (1995) 273-297 (hinge).
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from chainrule.losses.entry import Curve, Inputs, Loss, Naive, integers, normal, require_same_shape

IGNORED = -100  # PyTorch's mark of a target that does not count


def cross_entropy(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
    ignored: int = IGNORED,
) -> Tensor:
    """L = −Σ_c y_c log p_c,  p = softmax(prediction)            dL/dprediction = (p − y) / n

    prediction  logits (..., C)
    target      classes (...) of integers, or probabilities y (..., C)
    weight      (C): the term of class c counts weight_c, and n is the sum of the weights of the targets that count
    smoothing   s: y becomes (1 − s) y + s/C
    ignored     class that does not count, neither in the sum nor in n; if no target counts the loss is 0

    PyTorch's mean is nan where all targets are ignored; a sum divided by the count is 0, so that a micro-batch of padding
    does no harm. Soft targets are divided by the number of examples, as PyTorch does.
    """
    logits_NC = prediction.reshape(-1, prediction.shape[-1])
    if target.is_floating_point():
        require_same_shape("cross-entropy with probabilities as targets", prediction, target)
        return F.cross_entropy(logits_NC, target.reshape(logits_NC.shape), weight, label_smoothing=smoothing)
    target_N = target.reshape(-1)
    require_same_shape("cross-entropy", logits_NC[:, 0], target_N)
    total = F.cross_entropy(
        logits_NC, target_N, weight, ignore_index=ignored, reduction="sum", label_smoothing=smoothing
    )
    return total / _count(target_N, weight, ignored).clamp_min(torch.finfo(torch.float32).tiny)


def _count(target_N: Tensor, weight_C: Tensor | None, ignored: int) -> Tensor:
    counted_N = target_N != ignored
    if weight_C is None:
        return counted_N.sum()
    return (weight_C[torch.where(counted_N, target_N, 0)] * counted_N).sum()


def log_loss(prediction: Tensor, target: Tensor, *, positive_weight: float = 1.0) -> Tensor:
    """L = −w t log σ(x) − (1 − t) log(1 − σ(x)),  x = prediction            dL/dx = (σ(x) − t) / n  for w = 1

    target           1 or 0, or a probability; of the shape of the prediction
    positive_weight  w; for any w dL/dx = ((1 − t) σ(x) − w t σ(−x)) / n
    """
    require_same_shape("log-loss", prediction, target)
    weight = None if positive_weight == 1 else prediction.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(prediction, target.to(prediction.dtype), pos_weight=weight)


def binary_focal(prediction: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """L = −α_t (1 − p_t)^γ log p_t,  p_t = σ(s x),  s = 2t − 1            dL/dx = s α_t (1 − p_t)^γ (γ p_t log p_t + p_t − 1) / n

    target  1 or 0, of the shape of the prediction x
    gamma   γ: how much less an example counts that is right already; 0 is the log loss
    alpha   α_t is α for positives, 1 − α for negatives

    (1 − p_t)^γ is computed as exp(γ log σ(−s x)), whose gradient is finite also where 1 − p_t rounds to 0.
    """
    require_same_shape("binary-focal", prediction, target)
    sign = 2 * target.to(prediction.dtype) - 1
    weight = 0.5 + sign * (alpha - 0.5)
    ease = torch.exp(gamma * F.logsigmoid(-sign * prediction))
    return -(weight * ease * F.logsigmoid(sign * prediction)).mean()


def focal(prediction: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """L = −(1 − p_t)^γ log p_t,  p = softmax(x)            dL/dx = ((1 − p_t)^γ − γ p_t (1 − p_t)^(γ−1) log p_t) (p − y) / n

    prediction  logits x (..., C)
    target      classes t (...) of integers; y is 1 at t and 0 elsewhere
    gamma       γ ≥ 1, or 0, the cross entropy; between them the slope of (1 − p_t)^γ has no bound at p_t = 1
    """
    logits_NC, target_N = prediction.reshape(-1, prediction.shape[-1]), target.reshape(-1)
    require_same_shape("focal", logits_NC[:, 0], target_N)
    log_p_N = F.log_softmax(logits_NC, dim=-1).gather(1, target_N[:, None]).squeeze(1)
    if gamma == 0:
        return -log_p_N.mean()
    return -((-torch.expm1(log_p_N)) ** gamma * log_p_N).mean()


def hinge(prediction: Tensor, target: Tensor) -> Tensor:
    """L = max(0, 1 − s x),  x = prediction, s = 2t − 1            dL/dx = −s [s x < 1] / n

    target  1 or 0, of the shape of the prediction: as the log loss takes it
    """
    require_same_shape("hinge", prediction, target)
    sign = 2 * target.to(prediction.dtype) - 1
    return F.relu(1 - sign * prediction).mean()


# --- the catalogue's part -----------------------------------------------------------------------------------------------


def _draw_classes(generator: torch.Generator) -> Inputs:
    return {"prediction": 2 * normal(generator, 5, 4), "target": integers(generator, 4, 5)}


def _draw_binary(generator: torch.Generator) -> Inputs:
    return {"prediction": 2 * normal(generator, 6), "target": integers(generator, 2, 6)}


def _one_class(x: Tensor) -> Inputs:
    """Three classes, the first is right and has the logit x, the others 0."""
    return {"prediction": torch.stack([x, 0 * x, 0 * x])[None], "target": torch.zeros(1, dtype=torch.long)}


def _one_positive(x: Tensor) -> Inputs:
    return {"prediction": x[None], "target": torch.ones_like(x[None])}


RIGHT_CLASS = Curve("logit of the right class; two others have 0", -6.0, 6.0, _one_class)
POSITIVE = Curve("logit of a positive example", -6.0, 6.0, _one_positive)


def _surely_wrong() -> Inputs:
    return {"prediction": torch.tensor([[0.0, 200.0]]), "target": torch.tensor([0])}


def _wrong_negative() -> Inputs:
    return {"prediction": torch.tensor([200.0]), "target": torch.tensor([0])}


def naive_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """−log of the softmax that was computed first."""
    p_NC = prediction.exp() / prediction.exp().sum(dim=-1, keepdim=True)
    return -p_NC.gather(1, target[:, None]).log().mean()


def naive_log_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """−t log p − (1 − t) log(1 − p) of a sigmoid that was computed first."""
    p = torch.sigmoid(prediction)
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def naive_focal(prediction: Tensor, target: Tensor) -> Tensor:
    """−(1 − p)² log p of a softmax that was computed first."""
    p_N = torch.softmax(prediction, dim=-1).gather(1, target[:, None])
    return -((1 - p_N) ** 2 * p_N.log()).mean()


def naive_binary_focal(prediction: Tensor, target: Tensor) -> Tensor:
    """The same of a sigmoid."""
    p = torch.where(target == 1, torch.sigmoid(prediction), 1 - torch.sigmoid(prediction))
    return -((1 - p) ** 2 * p.log()).mean()


_of_classes = partial(Loss, task="classification", target="classes", draw=_draw_classes, curve=RIGHT_CLASS)
_of_labels = partial(Loss, task="classification", target="binary", draw=_draw_binary, curve=POSITIVE)
CROSS_ENTROPY = _of_classes(
    function=cross_entropy,
    formula="−Σ_c y_c log p_c,  p = softmax(x)",
    gradient="p − y",
    outliers="sensitive to wrong labels: the loss of a confident mistake grows without bound, its pull is at most 1 a logit",
    choose="one of C classes; you want probabilities; the default for classification and language models",
    avoid="several classes can be right at once (log-loss for each); many labels are wrong (smoothing helps, focal does not)",
    naive=Naive(
        form="−log(exp x_t / Σ exp x_c)",
        breaks="exp overflows beyond x = 88 in float32: inf/inf = nan; p_t below 1e-45 is 0: log 0. log(p + ε) only hides it: "
        "the gradient becomes p (1 − p)/(p + ε), which vanishes where the mistake is greatest",
        function=naive_cross_entropy,
        at=_surely_wrong,
    ),
)
LOG_LOSS = _of_labels(
    function=log_loss,
    formula="−t log σ(x) − (1 − t) log(1 − σ(x))",
    gradient="σ(x) − t",
    outliers="sensitive to wrong labels: the loss of a confident mistake grows as |x|, its pull is at most 1",
    choose="yes or no, or several labels that are independent; you want probabilities",
    avoid="exactly one of several classes is right (cross-entropy); one class is so rare that most of the loss is easy examples",
    naive=Naive(
        form="−t log p − (1 − t) log(1 − p),  p = σ(x)",
        breaks="σ(x) is 1 beyond x = 17 in float32: log(1 − p) = log 0 = −inf, and 0 · −inf = nan for the other label",
        function=naive_log_loss,
        at=_wrong_negative,
    ),
)
FOCAL = _of_classes(
    function=focal,
    formula="−(1 − p_t)^γ log p_t,  p = softmax(x)",
    gradient="((1 − p_t)^γ − γ p_t (1 − p_t)^(γ−1) log p_t) (p − y)",
    outliers="sensitive to wrong labels, more than the cross entropy: what is hard counts most",
    choose="one class has nearly all examples, and they are easy",
    avoid="you want calibrated probabilities; labels are noisy; imbalance is mild (class weights do)",
    naive=Naive(
        form="−(1 − p)^γ log p,  p = softmax(x)_t",
        breaks="p below 1e-45 is 0 in float32: log 0 = −inf, gradient nan",
        function=naive_focal,
        at=_surely_wrong,
    ),
)
BINARY_FOCAL = _of_labels(
    function=binary_focal,
    formula="−α_t (1 − p_t)^γ log p_t,  p_t = σ(s x), s = 2t − 1",
    gradient="s α_t (1 − p_t)^γ (γ p_t log p_t + p_t − 1)",
    outliers="sensitive to wrong labels, more than the log loss: what is hard counts most",
    choose="positives are rarer than 1 in 100 and negatives are easy: detection, fraud",
    avoid="you want calibrated probabilities; labels are noisy; imbalance is mild (positive_weight does)",
    naive=Naive(
        form="−(1 − p)^γ log p,  p = σ(x) or 1 − σ(x)",
        breaks="1 − σ(x) is 0 beyond x = 17 in float32: log 0 = −inf, gradient nan",
        function=naive_binary_focal,
        at=_wrong_negative,
    ),
)
HINGE = _of_labels(
    function=hinge,
    formula="max(0, 1 − s x),  s = 2t − 1",
    gradient="−s [s x < 1]",
    outliers="moderate: the loss of a wrong label grows as |x|, its pull is 1; examples beyond the margin have none",
    choose="only the decision matters; few support vectors; a maximal margin",
    avoid="you want probabilities; second derivatives are used",
)
LOSSES = (CROSS_ENTROPY, LOG_LOSS, FOCAL, BINARY_FOCAL, HINGE)
