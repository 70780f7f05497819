"""loss-scale: the loss of your own pulls far harder, or far more weakly, than learning rates are made for.

What it checks
    The gradient of one example to its prediction, as an untrained model predicts: the norm of B · dL/dprediction, its median.
Why it matters
    Learning rates, clipping and weight decay are tuned for losses whose pull is about 1: cross entropy at most √2, huber at
    most δ. A loss in other units (a factor of 1e6, squared prices) diverges or stands still at the usual rate.
How it decides
    A warning above 1,000 or below 1/10,000; the figures are in the finding. Adaptive optimizers (Adam) do not see a constant
    factor, but clipping by norm, weight decay in the loss and eps do.
Broken
    def loss(prediction, target):
        return 1e6 * (prediction - target).square().mean()
Repaired
    def loss(prediction, target):
        return (prediction - target).square().mean()
Limits
    It looks at the beginning only; a target that is not standardised shows here, too, and is the more common cause.
"""

from __future__ import annotations

from chainrule.checks.own_loss.subject import LossSubject, pull
from chainrule.finding import NotRun, Outcome

NAME = "loss-scale"
STRONG, WEAK = 1e3, 1e-4


def check(subject: LossSubject) -> Outcome:
    """Measure the pull on one example."""
    value, gradient = subject.value_and_gradient(subject.prediction, subject.target)
    if gradient is None or not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        return NotRun("there is no finite gradient")
    strength = pull(gradient)
    if WEAK <= strength <= STRONG or strength == 0:  # 0: most examples are right already, as a hinge may have them
        return []
    return [
        subject.finding(
            NAME,
            "warning",
            f"one example pulls at its prediction with {strength:.3g}, where losses usually do with about 1",
            evidence={"loss": float(value), "pull": strength},
            rows=(
                ("loss", f"{float(value):.4g}", "of an untrained model"),
                ("pull", f"{strength:.4g}", "median of B · |dL/dp|"),
            ),
            advice="Standardise the target, or divide the loss by its unit; else choose the learning rate for this scale.",
        )
    ]
