"""update-ratio: steps are absurdly large or small beside the weights that they change.

What it checks
    |step| / |weights|, over all matrices of an optimizer together.
Why it matters
    A healthy ratio is near 1e-3. Above 1 a single step replaces what the weights were: the rate is orders of magnitude too
    large. Below 1e-7 a million steps change nothing.
How it decides
    Larger than 1, or smaller than 1e-7, in every step that was looked at, two at least, and the rate does not rise: a warning.
    Vectors and scalars are left out (biases begin at zero), as are steps at rate zero.
Broken
    torch.optim.SGD(model.parameters(), lr=1e3)
Repaired
    torch.optim.SGD(model.parameters(), lr=1e-1)
Limits
    It sees the size, not whether the direction is right; the range of rates that train is `learning-rate-range`.
"""

from __future__ import annotations

from chainrule.checks.update.expected import Move, moves, warming_up
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.close_look import norm
from chainrule.watch.observed import Observed

NAME = "update-ratio"
LARGEST, SMALLEST = 1.0, 1e-7


def judge(observed: Observed) -> Outcome:
    """Whether steps are out of proportion to the weights."""
    seen = [move for move in moves(observed) if move.dimensions >= 2 and move.rate > 0 and move.pulled]
    names = dict.fromkeys(move.record.optimizer for move in seen)
    found, judged = [], False
    for name in names:
        ratios = _ratios([move for move in seen if move.record.optimizer == name])
        if len(ratios) < 2 or warming_up(observed, name):
            continue
        judged = True
        if min(ratios) > LARGEST or max(ratios) < SMALLEST:
            found.append(_finding(name, ratios, next(move for move in seen if move.record.optimizer == name)))
    return found if judged else NotRun("fewer than two steps of matrices at a settled rate were looked at")


def _ratios(seen: list[Move]) -> list[float]:
    """|step| / |weights| of each step."""
    by_step: dict[int, list[Move]] = {}
    for move in seen:
        by_step.setdefault(move.record.number, []).append(move)
    pairs = [(norm(m.step for m in own), norm(m.before for m in own)) for own in by_step.values()]
    return [step / weights for step, weights in pairs if step is not None and weights]


def _finding(name: str, ratios: list[float], move: Move) -> Finding:
    large = min(ratios) > LARGEST
    middle = sorted(ratios)[len(ratios) // 2]
    said = "larger than the weights themselves" if large else "less than a ten-millionth of the weights"
    advice = f"divide the rate ({move.rate:g}) by {middle / 1e-3:.0e}" if large else f"raise the rate ({move.rate:g})"
    return Finding(
        check=NAME,
        severity="warning",
        where=name,
        source=move.record.line,
        message=f"each step of {name} is {said}: ratio {middle:.1e}",
        evidence={"ratios": ratios, "lr": move.rate},
        rows=(("|step| / |weights|", f"{middle:.1e}", "near 1e-3 where training goes well"),),
        notes=(f"To begin with, {advice}; `--only learning-rate-range` measures which rates train.",),
    )
