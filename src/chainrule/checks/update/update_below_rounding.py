"""update-below-rounding: steps are too small for the dtype of the parameters, so that the parameters stand still.

What it checks
    Of the entries that should move, by the optimizer's formula, how many are the same after the step because the step was less
    than half the distance to the next number of the dtype. The same for weight decay by itself.
Why it matters
    bfloat16 has 8 bits: a weight of 1.0 cannot move by less than 0.002. With AdamW at a rate of 1e-3 norm weights never move
    at all, at 1e-5 most matrices stand still, and p (1 - lr · wd) is p. The loss falls at first and then stays.
How it decides
    Entries with a step by the formula and none in the parameter, as a share of all that should move; reported from one half on
    in every step looked at (in 32 bits from 95 % of all entries together on), unless the rate still rises. An error if
    95 % of all entries of one of torch's own optimizers stand still; a warning otherwise. Decay: p (1 - lr · wd) is p for
    every entry, for an optimizer that decays the parameter itself.
Broken
    model = model.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
Repaired
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)           # parameters in float32
    with torch.autocast("cpu", torch.bfloat16):
        loss = ...
Limits
    Only torch's own optimizers and classes that claim one of their formulas: others may keep what rounding takes
    (Kahan summation, master weights) or round stochastically.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from chainrule.checks.update.expected import Move, moves, warming_up
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import unit
from chainrule.update_rules import OF_TORCH
from chainrule.watch.observed import Observed

NAME = "update-below-rounding"
SHARE, ALMOST_ALL = 0.5, 0.95  # biases that begin at zero move by any step
DECAYING = ("AdamW", "Lion", "Muon", "Adafactor")


def judge(observed: Observed) -> Outcome:
    """Which parameters stand still because their steps are below rounding."""
    seen = [move for move in moves(observed) if move.expected is not None and move.rate > 0]
    if not seen:
        return NotRun("no step of an optimizer whose formula is known was looked at")
    found = []
    for name in dict.fromkeys(move.record.optimizer for move in seen):
        own = [move for move in seen if move.record.optimizer == name]
        if not warming_up(observed, name):
            found += _standing(name, own) or _without_decay(name, own)
    return found


def _standing(name: str, seen: list[Move]) -> list[Finding]:
    by_path: dict[str, list[tuple[int, int]]] = {}
    for move in seen:
        by_path.setdefault(move.path, []).append(move.once(_counts))
    shares = {path: _least(counts) for path, counts in by_path.items() if any(total for _, total in counts)}
    still = {path: share for path, share in shares.items() if share >= SHARE}
    overall = _least(_sums(by_path.values()))
    wide = all(torch.finfo(move.before.dtype).bits > 16 for move in seen)
    # in float32 single parameters of a tiny gradient stand still in healthy models: ConvNext's layer scale is 1e-6
    if not still or (wide and overall < ALMOST_ALL):
        return []
    return [_finding(name, seen, still, overall, len(shares))]


def _counts(move: Move) -> tuple[int, int]:
    """(entries that stand still because of rounding, entries that should move)."""
    should = move.size > 0
    still = should & (move.before == move.after) & (move.size <= move.rounding)
    return int(still.sum()), int(should.sum())


def _least(counts: Iterable[tuple[int, int]]) -> float:
    return min((still / total for still, total in counts if total), default=0.0)


def _sums(columns: Iterable[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Over all parameters, step by step."""
    return [(sum(s for s, _ in row), sum(t for _, t in row)) for row in zip(*columns, strict=False)]


def _finding(name: str, seen: list[Move], still: Mapping[str, float], overall: float, held: int) -> Finding:
    worst = max(still, key=lambda path: still[path])
    move = next(move for move in seen if move.path == worst)
    size = float(move.size.mean())
    spacing = float(move.rounding.mean()) / 2
    certain = overall >= ALMOST_ALL and move.record.rule in OF_TORCH
    dtype = str(move.before.dtype).removeprefix("torch.")
    return Finding(
        check=NAME,
        severity="error" if certain else "warning",
        where=worst,
        source=move.record.line,
        message=f"{still[worst]:.0%} of the entries of {worst} stand still: the step of {name} is below the rounding of {dtype}",
        evidence={
            "optimizer": name,
            "dtype": dtype,
            "standing": overall,
            "parameters": {path: still[path] for path in list(still)[:50]},
        },
        rows=(
            ("step by the formula", f"{size:.1e}", f"mean over {worst}, rate {move.rate:g}"),
            ("half a unit in the last place", f"{spacing:.1e}", f"of {dtype} at its values"),
            ("entries standing still", f"{overall:.0%}", f"of all; half or more in {len(still)} of {held} parameters"),
        ),
        notes=(
            "Keep the parameters in float32 and compute in the narrow dtype under torch.autocast, or use an optimizer with "
            "float32 master weights or stochastic rounding.",
        ),
    )


def _without_decay(name: str, seen: list[Move]) -> list[Finding]:
    lost = [move for move in seen if _decay_is_lost(move)]
    if not lost or len(lost) < sum(_decays(move) for move in seen):
        return []
    move = lost[0]
    rate, decay, dtype = move.rate, float(move.settings["weight_decay"]), str(move.before.dtype).removeprefix("torch.")
    return [
        Finding(
            check=NAME,
            severity="warning",
            where=f"weight_decay of {name}",
            source=move.record.line,
            message=f"weight decay does nothing: 1 - lr · weight_decay is 1 in {dtype}",
            evidence={"optimizer": name, "dtype": dtype, "lr": rate, "weight_decay": decay},
            rows=(
                ("lr · weight_decay", f"{rate * decay:.1e}", ""),
                ("least that moves a parameter", f"{unit(move.before.dtype) / 2:.1e}", f"of its value, in {dtype}"),
            ),
            notes=("Keep the parameters in float32: in a narrow dtype the decay is rounded away in every step.",),
        )
    ]


def _decays(move: Move) -> bool:
    decay = float(move.settings.get("weight_decay") or 0.0)
    return decay != 0 and move.rule is not None and move.rule.name in DECAYING and bool(move.before.any())


def _decay_is_lost(move: Move) -> bool:
    """True if decay by itself leaves every entry where it is."""
    if not _decays(move) or torch.finfo(move.before.dtype).bits > 16:
        return False
    decayed: Tensor = move.before.double() * (1 - move.rate * float(move.settings["weight_decay"]))
    return torch.equal(decayed.to(move.before.dtype), move.before)
