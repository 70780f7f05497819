"""Which loss fits a column of targets, with the reasons and the figures that were seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chainrule.losses.called import written
from chainrule.losses.classification import BINARY_FOCAL, CROSS_ENTROPY, FOCAL, HINGE, LOG_LOSS
from chainrule.losses.entry import Kind, Loss
from chainrule.losses.outliers import BEYOND, Spread, spread
from chainrule.losses.regression import HUBER, LOG_COSH, MAE, MSE, POISSON, QUANTILE
from chainrule.losses.targets import Targets, targets_of

EFFICIENT = 1.345  # δ in standard deviations: 95 % of the efficiency of least squares on normal errors (Huber 1981)
FEW, MANY = (
    0.005,
    0.05,
)  # shares of outliers: below the first normal numbers have nearly as many; above the last they are no exception
FAR = 6.0  # scales: one outlier this far off is enough, whatever the share; 2 in 10^9 normal numbers are
RARE, VERY_RARE = 0.1, 0.01  # shares of the rarer of two classes
UNEVEN = 10.0  # times that the largest class is larger than the smallest
FEWEST = 10  # rows of a class below which it can hardly be learned
OVERDISPERSED = 3.0  # variance over mean
MAGNITUDES = 100.0  # largest over smallest positive target

Setting: TypeAlias = float | tuple[float, ...]


@dataclass(frozen=True)
class Recommendation:
    """A loss for the data at hand.

    loss      of the catalogue
    settings  of its function
    reasons   sentences, the decisive one first
    seen      (label, figure) that the reasons rest on
    in_run    the lines of [table] in RUN.toml that train with it; numbers are standardised there
    others    (loss, when it would be the better choice)
    """

    loss: Loss
    settings: Mapping[str, Setting]
    reasons: tuple[str, ...]
    seen: tuple[tuple[str, str], ...]
    in_run: str
    others: tuple[tuple[Loss, str], ...] = field(default=())


def recommend(column: Sequence[Any] | NDArray[Any], *, kind: Kind | None = None) -> Recommendation:
    """A loss for a column of targets: numbers, strings or booleans.

    kind  "numbers", "counts", "binary" or "classes", if you know; None = conclude it from the values

    Raises DataError for a column from which nothing can be learned; see `targets.targets_of`.
    """
    return recommend_for(targets_of(column, kind=kind))


def recommend_for(targets: Targets) -> Recommendation:
    """A loss for targets that were looked at already."""
    if targets.kind == "counts":
        return _for_counts(targets)
    if targets.kind == "binary":
        return _for_two_classes(targets)
    return _for_classes(targets) if targets.kind == "classes" else _for_numbers(targets)


def _seen(targets: Targets, *figures: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    missing = f", {targets.missing:,} missing" if targets.missing else ""
    rows = f"{len(targets.values):,}{missing}"
    return (("targets", f"{targets.kind}: {targets.reason}"), ("rows", rows), *figures)


def _in_run(loss: Loss, settings: Mapping[str, float]) -> str:
    return f'loss = "{written(loss, {name: float(f"{value:.3g}") for name, value in settings.items()})}"'


# --- numbers --------------------------------------------------------------------------------------------------------------


def _for_numbers(targets: Targets) -> Recommendation:
    found = spread(targets.values)
    loss, settings, reason = _by_outliers(found)
    scaled = {name: value / float(targets.values.std()) for name, value in settings.items()}
    far = f"{found.above:.2%} above, {found.below:.2%} below; the farthest {found.farthest:.1f} scales off"
    figures = (
        ("median, scale", f"{found.median:.4g}, {found.scale:.4g} (1.4826 · median absolute deviation)"),
        (f"beyond {BEYOND} scales", f"{far}; of normal numbers 0.05 % are"),
    )
    others = (
        (MSE, "if the far ones are real and their mean counts"),
        (MAE, "if you want the median"),
        (HUBER, f"if some targets are wrong: delta = {EFFICIENT * found.scale:.3g}"),
        (LOG_COSH, "as huber, on standardised targets"),
        (QUANTILE, "if too high and too low cost differently, or for an interval"),
    )
    reasons = (reason, *_of_a_tail(targets.values, found))
    rest = tuple(pair for pair in others if pair[0] is not loss)
    return Recommendation(loss, settings, reasons, _seen(targets, *figures), _in_run(loss, scaled), rest)


def _by_outliers(found: Spread) -> tuple[Loss, dict[str, float], str]:
    if found.outliers > MANY:
        return (
            MAE,
            {},
            f"{found.outliers:.1%} of the targets are far off: they are no exception, so no error may pull harder",
        )
    if found.outliers > FEW or found.farthest > FAR:
        delta = float(f"{EFFICIENT * found.scale:.3g}")
        reason = (
            f"{found.outliers:.2%} of the targets are far off, up to {found.farthest:.0f} scales: with mse the farthest "
            f"would pull {found.farthest / EFFICIENT:.0f} times as hard; delta is {EFFICIENT} scales, in the target's units"
        )
        return HUBER, {"delta": delta}, reason
    return MSE, {}, "hardly a target is far off, so the mean is a good centre and least squares the most efficient"


def _of_a_tail(values: NDArray[np.float64], found: Spread) -> tuple[str, ...]:
    notes = [
        "These are the targets; the errors of a good model may have fewer outliers, or others: look again after training."
    ]
    smallest, largest = float(values.min()), float(values.max())
    if smallest > 0 and largest > MAGNITUDES * smallest and found.above > found.below:
        digits = math.log10(largest) - math.log10(smallest)
        notes.insert(
            0,
            f"The targets span {digits:.1f} orders of magnitude, all are positive: consider their logarithm as target.",
        )
    return tuple(notes)


def _for_counts(targets: Targets) -> Recommendation:
    values = targets.values
    if values.min() < 0:
        return _for_numbers(targets)
    mean, ratio = float(values.mean()), float(values.var() / max(values.mean(), 1e-300))
    reasons = [
        "counts: the variance grows with the mean, as that of a Poisson distribution, and the rate stays positive"
    ]
    if ratio > OVERDISPERSED:
        reasons.append(
            f"The variance is {ratio:.1f} times the mean, of Poisson counts it is once: the mean is still estimated rightly, "
            "but intervals would be too narrow."
        )
    figures = (
        ("mean, variance", f"{mean:.3g}, {float(values.var()):.3g}"),
        ("zeros", f"{float((values == 0).mean()):.1%}"),
    )
    others = ((MSE, "if all counts are large"), (HUBER, "if some counts are wrong"))
    return Recommendation(POISSON, {}, tuple(reasons), _seen(targets, *figures), _in_run(POISSON, {}), others)


# --- classes --------------------------------------------------------------------------------------------------------------


def _sizes(targets: Targets) -> tuple[str, str]:
    """The classes with their shares, the largest first, at most six."""
    total = sum(targets.sizes)
    ordered = sorted(zip(targets.sizes, targets.labels, strict=True), reverse=True)
    named = [f"{label} {size:,} ({size / total:.1%})" for size, label in ordered[:6]]
    return "classes", ", ".join(named) + (f" and {len(ordered) - 6} more" if len(ordered) > 6 else "")


def _for_two_classes(targets: Targets) -> Recommendation:
    share = min(targets.sizes) / sum(targets.sizes)
    rare, positive = targets.labels[int(np.argmin(targets.sizes))], targets.labels[1]
    weight = float(f"{targets.sizes[0] / targets.sizes[1]:.3g}")
    loss, settings = LOG_LOSS, dict[str, float]()
    others = [(HINGE, "if only the decision matters, not its probability")]
    reasons = [f"two classes, {positive} is the positive one: the log loss is smallest at the true probabilities"]
    if share < VERY_RARE:
        loss, settings = BINARY_FOCAL, {"gamma": 2.0, "alpha": 0.25 if rare == positive else 0.75}
        reasons = [
            f"{rare} is {share:.2%} of the rows: easy examples of the other would make up nearly all of a log loss"
        ]
        others.insert(0, (LOG_LOSS, "if you want calibrated probabilities: it gives them at any imbalance"))
    elif share < RARE:
        settings = {"positive_weight": weight}
        reasons.append(
            f"{rare} is {share:.1%} of the rows: weight {weight:g} for {positive} lets both classes count alike."
        )
        others.insert(0, (BINARY_FOCAL, "if the frequent class is easy and still dominates"))
    if share < RARE:
        reasons.append("Probabilities are then shifted towards the rare class; without weight they are calibrated.")
    reasons += _too_few(targets)
    seen = _seen(targets, _sizes(targets))
    return Recommendation(loss, settings, tuple(reasons), seen, _in_run(loss, settings), tuple(others))


def _for_classes(targets: Targets) -> Recommendation:
    sizes = np.array(targets.sizes)
    ratio = float(sizes.max() / sizes.min())
    reasons = [f"{len(sizes)} classes: the cross entropy is smallest at the true probabilities"]
    settings = dict[str, Setting]()
    if ratio > UNEVEN:
        settings["weight"] = tuple(float(f"{weight:.3g}") for weight in sizes.sum() / (len(sizes) * sizes))
        reasons.append(
            f"The largest class has {ratio:.0f} times the rows of the smallest: weights n/(C n_c) let all classes count alike, "
            "and shift the probabilities towards rare ones."
        )
    reasons += _too_few(targets)
    others = ((FOCAL, "if one class is easy and dominates"),)
    in_run = _in_run(CROSS_ENTROPY, {}) + ('\n[table]\nclass_weights = "balanced"' if settings else "")
    return Recommendation(CROSS_ENTROPY, settings, tuple(reasons), _seen(targets, _sizes(targets)), in_run, others)


def _too_few(targets: Targets) -> list[str]:
    small = [label for label, size in zip(targets.labels, targets.sizes, strict=True) if size < FEWEST]
    if not small:
        return []
    more = f" and {len(small) - 3} more" if len(small) > 3 else ""
    return [f"{', '.join(small[:3])}{more} has fewer than {FEWEST} rows: no loss makes up for missing examples."]
