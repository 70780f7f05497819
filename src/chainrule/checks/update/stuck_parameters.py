"""stuck-parameters: a parameter has a gradient, and the optimizer's step does not move it.

What it checks
    Every parameter that had a gradient in a step has another value after it. (A step too small for the dtype is
    update-below-rounding.) A learning rate that is zero in every step is said, too.
Why it matters
    The loss may fall all the same, by the other parameters. Real causes: an optimizer that updates a copy, a step that makes
    a new tensor (p = p - lr * g), a compiled step that has learnt to skip.
How it decides
    In the last two steps that were looked at the parameter's gradient is not zero, its rate is not zero, its value after is
    bitwise the value before, and the step should have changed an entry by more than rounding: by the formula of the
    optimizer where it is known (an error), else by rate times gradient (a warning).
Broken
    for p in group["params"]:
        p = p - group["lr"] * p.grad                     # a new tensor; the model keeps the old one
Repaired
    for p in group["params"]:
        p.sub_(group["lr"] * p.grad)
Limits
    Of a very large model only the smaller parameters are looked at.
"""

from __future__ import annotations

from chainrule.checks.update.expected import Move, moves
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Observed

NAME = "stuck-parameters"
LAST = 2  # steps in a row: one alone may be a skipped one
STEPS_AT_RATE_ZERO = 3


def judge(observed: Observed) -> Outcome:
    """Which parameters stay where they are although they have a gradient."""
    seen = [move for move in moves(observed) if move.pulled]
    if not seen:
        return NotRun("no step with a gradient was looked at")
    found = []
    for name in dict.fromkeys(move.record.optimizer for move in seen):
        own = [move for move in seen if move.record.optimizer == name]
        found += _of_one(observed, name, own)
    return found


def _of_one(observed: Observed, name: str, seen: list[Move]) -> list[Finding]:
    rates = [rate for event in observed.of("step") if event.who == name for rate in event.numbers.get("rates") or ()]
    if len(rates) >= STEPS_AT_RATE_ZERO and not any(rates):
        return [_at_rest(name, seen[0], len(rates))]
    by_path: dict[str, list[Move]] = {}
    for move in seen:
        if move.rate != 0:
            by_path.setdefault(move.path, []).append(move)
    stuck = {path: own for path, own in by_path.items() if len(own) >= LAST and all(map(_stays, own[-LAST:]))}
    return [_finding(name, stuck, len(by_path))] if stuck else []


def _stays(move: Move) -> bool:
    if not move.unmoved:
        return False
    should = move.rate * move.grad.double().abs() if move.expected is None else move.size
    return bool((should > 2 * move.rounding).any())


def _finding(name: str, stuck: dict[str, list[Move]], held: int) -> Finding:
    path, own = next(iter(stuck.items()))
    certain = all(any(move.expected is not None for move in moves) for moves in stuck.values())
    everything = len(stuck) == held
    several = f"none of the {held} parameters" if everything else f"{len(stuck)} of {held} parameters do not move:"
    listed = "" if everything else " " + ", ".join(list(stuck)[:5]) + (" ..." if len(stuck) > 5 else "")
    return Finding(
        check=NAME,
        severity="error" if certain else "warning",
        where=name if everything else path,
        source=own[0].record.line,
        message=f"{several}{' of ' + name + ' moves' if everything else listed}, although they have gradients",
        evidence={"optimizer": name, "parameters": list(stuck)[:50], "steps": [move.record.number for move in own]},
        rows=(
            ("gradient norm", f"{float(own[0].grad.norm()):.3g}", f"of {path} in step {own[0].record.number}"),
            ("moved by", "0", f"at rate {own[0].rate:g}"),
        ),
        notes=(
            "The step changes something else than the model's own tensors: update in place (p.sub_, p.data), build the "
            "optimizer from the model that is trained, and look whether something puts the old values back.",
        ),
    )


def _at_rest(name: str, move: Move, steps: int) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=name,
        source=move.record.line,
        message=f"the learning rate is 0 in all {steps} steps: nothing is trained",
        evidence={"optimizer": name, "steps": steps},
        notes=("Look at what sets lr: a warm-up that divides integers, a schedule that has come to its end.",),
    )
