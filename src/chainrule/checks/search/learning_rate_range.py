"""learning-rate-range: which learning rates train, and whether the one that is set is among them.

What it checks
    A short training in which the rate grows from 1e-7 to 10, with the user's own optimizer, finds the rate from which on the
    loss falls, the one at which it is lowest, and the one at which it diverges; the user's rate is set beside them.
Why it matters
    A rate a hundred times too high gives inf or a dead network within ten steps; one a thousand times too low looks like a
    model that cannot learn.
How it decides
    100 updates, the rate multiplied by 1.2 each, over up to 8 batches in turn, each loss as a share of that batch's first,
    smoothed by an exponential mean of 0.8. Diverged: 1.5 times the least and above the first loss, or not finite.
    Recommended: the least of a tenth of the lowest point's rate, the rate at which half of the fall is done, and a third of
    the diverging one: the sweep passes quickly, a training stays. A user's rate above the diverging one, or below a
    thousandth of the recommended: a warning. Otherwise the recommendation is told as info (Smith 2017, arXiv 1506.01186).
Broken
    torch.optim.SGD(model.parameters(), lr=100.0)
Repaired
    torch.optim.SGD(model.parameters(), lr=0.1)
Limits
    It knows the beginning of training only: a warm-up or a schedule allows more later or less. It trains: it runs only when
    it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from chainrule.checks.parameters.owners import called
from chainrule.checks.search.training import Losses, NoTrainingError, seconds_per_update, trained
from chainrule.checks.subject import Subject
from chainrule.finding import Finding, NotRun, Outcome

NAME = "learning-rate-range"
LOWEST, HIGHEST, UPDATES, FEWEST, SECONDS = 1e-7, 10.0, 100, 40, 60.0
SMOOTHING, BLOWN, FALLEN = 0.8, 1.5, 0.98
BELOW_LOWEST, BELOW_DIVERGING, FAR_BELOW = 10.0, 3.0, 1000.0


@dataclass(frozen=True)
class Range:
    """What a sweep says. All are rates of the group that learns fastest.

    falls      at which the loss has fallen by 2 %; None if it never does
    halfway    at which half of the fall is done
    lowest     at which it is lowest
    diverges   at which it blows up; None if it does not up to 10
    """

    falls: float | None
    halfway: float
    lowest: float
    diverges: float | None
    least: float

    @property
    def recommended(self) -> float:
        """The most careful of three."""
        return self._candidates[0][0]

    @property
    def reason(self) -> str:
        """Which of them it is."""
        return self._candidates[0][1]

    @property
    def _candidates(self) -> list[tuple[float, str]]:
        ways = [
            (self.lowest / BELOW_LOWEST, f"a tenth of {self.lowest:.2g}, where the loss is lowest"),
            (self.halfway, "where half of the fall is done"),
        ]
        if self.diverges is not None:
            ways.append((self.diverges / BELOW_DIVERGING, f"a third of {self.diverges:.2g}, where the loss diverges"))
        return sorted(ways)


def check(subject: Subject) -> Outcome:
    """The range of rates that train, and where the user's rate lies in it."""
    if not subject.setup.optimizers:
        return NotRun("no optimizer was given", missing=True)
    if len(subject.setup.optimizers) > 1:
        return NotRun("several optimizers have a rate each")
    optimizer = subject.setup.optimizers[0]
    if subject.loss <= 0:
        return NotRun("the loss is not above zero, so shares of it have no meaning")
    if any(group.get("lr") is None for group in optimizer.param_groups):
        return NotRun(f"{type(optimizer).__name__} chooses its rate by itself")
    own = max(float(group["lr"]) for group in optimizer.param_groups)
    try:
        rates = _rates(seconds_per_update(subject.setup))
        losses = trained(subject.setup, rates, one_batch=False, adamw=None, seed=subject.seed)
    except NoTrainingError as error:
        return NotRun(str(error))
    return [_finding(subject, read(rates, losses), own)]


def _rates(seconds: float) -> list[float]:
    """From the lowest to the highest in equal ratios, in as many updates as a minute holds."""
    updates = min(UPDATES, max(FEWEST, int(SECONDS / max(seconds, 1e-6))))
    return [LOWEST * (HIGHEST / LOWEST) ** (update / (updates - 1)) for update in range(updates)]


def read(rates: list[float], losses: Losses) -> Range:
    """What the losses say of the rates; losses[t] is that before the update at rates[t]."""
    smooth = _smoothed(losses)
    least = min(range(len(smooth)), key=lambda t: smooth[t] if math.isfinite(smooth[t]) else math.inf)
    falls = next((rates[t] for t, loss in enumerate(smooth) if loss < FALLEN), None)
    halfway = next(rates[t] for t, loss in enumerate(smooth) if loss <= (1 + smooth[least]) / 2 or t == least)
    blown = (
        t
        for t, loss in enumerate(smooth)
        if t > least and not (loss <= max(BLOWN * smooth[least], 1.0) and math.isfinite(loss))
    )
    place = next(blown, None)
    return Range(falls, halfway, rates[least], None if place is None else rates[max(place - 1, 0)], smooth[least])


def _smoothed(losses: Losses) -> Losses:
    """An exponential mean, corrected for its beginning; what is not finite stays so."""
    smooth, mean = [], 0.0
    for t, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth.append(mean / (1 - SMOOTHING**t))
    return smooth


def _finding(subject: Subject, found: Range, own: float) -> Finding:
    name = called(subject.setup)
    warn, message = _judged(found, own, name)
    diverges = "not up to 10" if found.diverges is None else f"{found.diverges:.2g}"
    return Finding(
        check=NAME,
        severity="warning" if warn else "info",
        where=name,
        message=message,
        evidence={
            "own": own,
            "recommended": found.recommended,
            "falls": found.falls,
            "lowest": found.lowest,
            "diverges": found.diverges,
        },
        rows=(
            ("the loss falls from", f"{found.falls:.2g}" if found.falls else "no rate", "2 % below the beginning"),
            ("lowest at", f"{found.lowest:.2g}", f"{found.least:.0%} of the first loss"),
            ("diverges at", diverges, ""),
            ("recommended", f"{found.recommended:.2g}", found.reason),
            ("yours", f"{own:.2g}", ""),
        ),
        notes=(
            "The sweep sees the first updates only; with a warm-up the rate may rise above the recommended one later.",
        ),
        reproduce=subject.reproduce(NAME),
    )


def _judged(found: Range, own: float, name: str) -> tuple[bool, str]:
    """Whether to warn, and what to say."""
    if found.falls is None:
        return True, f"no rate from {LOWEST:g} to {HIGHEST:g} makes the loss fall with {name}"
    if found.diverges is not None and own > found.diverges:
        return True, f"the rate {own:g} of {name} is above {found.diverges:.2g}, where the loss diverges"
    if 0 < own < found.recommended / FAR_BELOW:
        return True, f"the rate {own:g} of {name} is {found.recommended / own:,.0f} times below the recommended one"
    return False, f"recommended rate for {name}: {found.recommended:.1g} ({found.reason})"
