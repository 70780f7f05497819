"""overfit-one-batch: the model cannot learn a single batch by heart.

What it checks
    Trained on one batch alone, without dropout, the loss comes down four fifths of the way that it could go.
Why it matters
    A model that cannot repeat eight examples will not learn a million: the loss is of other numbers than the model's outputs,
    a part is cut off or saturated, the rate is far off, inputs and targets do not belong together.
How it decides
    Target = floor + 0.2 · (first loss - floor). The floor is 0, or the entropy of the smoothed labels; the model must have ten
    times as many parameters as the batch has targets. First with the user's optimizer as it is; if that misses, with AdamW at
    1e-3 and 1e-2, which tells whether the optimizer or the model is to blame. At most 300 updates, fewer for a model of which
    they would take more than a minute each way. A warning: losses exist whose floor is not 0.
Broken
    loss = F.cross_entropy(model(x).softmax(-1), y)      # softmax twice: cannot go below 0.74 for four classes
Repaired
    loss = F.cross_entropy(model(x), y)
Limits
    Losses that are negative at the beginning are not judged. A floor that is not 0 for other reasons (a divergence between
    distributions, rows that look alike and have different targets) is not known, and can make it speak of a healthy model.
    It trains: it runs only when it is asked for.
"""

from __future__ import annotations

import math

from chainrule.checks.parameters.owners import called
from chainrule.checks.search.training import Losses, NoTrainingError, seconds_per_update, trained
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "overfit-one-batch"
UPDATES, FEWEST, SECONDS = 300, 30, 60.0
SHARE = 0.2  # of the way down that may be left: repeated inputs with other targets, an auxiliary loss
PER_TARGET = 10  # parameters
OTHERS = (1e-3, 1e-2)  # rates of the AdamW that is tried instead


def check(subject: Subject) -> Outcome:
    """Whether one batch can be learnt by heart."""
    if subject.loss <= 0:
        return NotRun("the loss is not above zero, so how far it can fall is not known")
    parameters = sum(leaf.value.numel() for leaf in subject.graph.parameters.values())
    targets = sum(
        leaf.value.shape[0] for leaf in subject.graph.leaves.values() if leaf.kind == "batch" and leaf.value.ndim
    )
    if parameters < PER_TARGET * targets:
        return NotRun(f"the model has {parameters:,} parameters, too few to learn {targets:,} rows by heart")
    try:
        updates = min(UPDATES, max(FEWEST, int(SECONDS / max(seconds_per_update(subject.setup), 1e-6))))
        return _tried(subject, updates)
    except NoTrainingError as error:
        return NotRun(str(error))


def _tried(subject: Subject, updates: int) -> Outcome:
    floor = _floor(subject) / subject.loss
    target = floor + SHARE * (1 - floor)
    own = _train(subject, updates, None)
    if _least(own) <= target:
        return []
    others = {rate: _train(subject, updates, rate) for rate in OTHERS}
    best = min(others, key=lambda rate: _least(others[rate]))
    return [_finding(subject, target, own, best, others[best], fits=_least(others[best]) <= target)]


def _train(subject: Subject, updates: int, adamw: float | None) -> Losses:
    return trained(subject.setup, [None] * updates, one_batch=True, adamw=adamw, seed=subject.seed)


def _least(losses: Losses) -> float:
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def _floor(subject: Subject) -> float:
    """The least cross entropy with smoothed labels; 0 for all other losses."""
    for node in subject.exact.nodes:
        smoothing = node.arguments.get("label_smoothing") or 0.0
        if smoothing > 0:
            return _entropy(smoothing, subject.values[node.arguments["self"].name].shape[1])
    return 0.0


def _entropy(smoothing: float, classes: int) -> float:
    other = smoothing / classes
    true = 1 - smoothing + other
    return -(true * math.log(true) + (classes - 1) * other * math.log(other))


def _finding(subject: Subject, target: float, own: Losses, rate: float, other: Losses, *, fits: bool) -> Finding:
    name = called(subject.setup) if len(subject.setup.optimizers) == 1 else "AdamW"
    first = subject.loss
    wanted = f"{target * first:.3g}"
    message = (
        f"{name} brings one batch from {first:.3g} to {_least(own) * first:.3g} in {len(own)} updates, not to {wanted}; "
        + (f"AdamW at {rate:g} does" if fits else f"AdamW at {rate:g} only to {_least(other) * first:.3g}")
    )
    return Finding(
        check=NAME,
        severity="warning",
        where=name if fits else type(subject.setup.model).__name__,
        message=message,
        evidence={"first": first, "target": target * first, "own": _least(own) * first, "adamw": _least(other) * first},
        rows=(
            ("first loss", f"{first:.6g}", ""),
            ("target", wanted, "a fifth of the way down is left"),
            (f"with {name}", f"{_least(own) * first:.6g}", f"lowest of {len(own)} updates"),
            (f"with AdamW at {rate:g}", f"{_least(other) * first:.6g}", f"lowest of {len(other)} updates"),
        ),
        notes=(
            "The model can learn the batch: the optimizer's rate or formula is to blame; try `--only learning-rate-range`."
            if fits
            else "The model or the loss is to blame: is what the loss sees the model's raw output, do inputs and targets belong "
            "together, is a part of the model cut off, saturated or frozen?",
        ),
        reproduce=subject.reproduce(NAME),
    )
