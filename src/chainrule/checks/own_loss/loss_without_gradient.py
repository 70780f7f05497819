"""loss-without-gradient: the loss of your own does not tell the predictions which way to go.

What it checks
    Whether autograd finds a way from the loss back to the predictions, and whether what arrives is not zero everywhere.
Why it matters
    argmax, rounding, comparisons, .item(), .detach() and NumPy have no gradient. The loss is printed and looks right, but no
    weight moves, or, where only a part of the loss is cut, that part is not learned.
How it decides
    On predictions as an untrained model makes them. An error if the loss requires no gradient, if autograd reaches the
    predictions on no path, or if the gradient is exactly 0 in every entry.
Broken
    def loss(prediction, target):
        return (prediction.argmax(1) != target).float().mean()
Repaired
    def loss(prediction, target):
        return torch.nn.functional.cross_entropy(prediction, target)
Limits
    A term that is cut beside one that is not is seen by loss-wrong-gradient, which compares with differences. Predictions that
    are all right already have no gradient rightly: give check_loss those of an untrained model.
"""

from __future__ import annotations

from chainrule.checks.own_loss.subject import LossSubject
from chainrule.finding import Outcome

NAME = "loss-without-gradient"


def check(subject: LossSubject) -> Outcome:
    """Ask autograd for the gradient to the predictions."""
    value, gradient = subject.value_and_gradient(subject.prediction, subject.target)
    if gradient is None:
        message = "autograd finds no way from this loss to the predictions: no weight would move"
    elif not bool(gradient.any()):
        message = "the gradient of this loss is 0 in every entry of the predictions: no weight would move"
    else:
        return []
    return [
        subject.finding(
            NAME,
            "error",
            message,
            evidence={"loss": float(value)},
            rows=(("loss", f"{float(value):.6g}", f"of {len(subject.prediction)} untrained predictions"),),
            advice="Look for argmax, round, a comparison, .item(), .detach(), numpy or torch.no_grad between the predictions "
            "and the loss; count errors with a smooth stand-in (cross-entropy, hinge).",
        )
    ]
