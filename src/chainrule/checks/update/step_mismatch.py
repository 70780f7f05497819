"""step-mismatch: a step of the running loop did not do what the optimizer's formula says.

What it checks
    The parameters after a real step equal the formula, computed in float64 from the values, gradients, state and settings
    that the step began with.
Why it matters
    update-formula tries a copy; this looks at the step itself: at the user's shapes, dtype, memory layout and compiler, and at
    whatever else changes parameters inside of the step.
How it decides
    Each entry: |formula - after| <= 4 u (|before| + |after|) + 64 u · max|step|: a few roundings where the result is stored, and
    those of the moments, in units of the parameter's dtype, more where decay and gradient cancel. A step below rounding can
    thus never be called wrong. Muon: a fifth of the step, in the directions that rounding leaves determined (those of
    its momentum's singular values above a hundredth of its norm); its Newton-Schulz runs in bfloat16 and makes others of
    rounding alone.
Broken
    def step(self):                                      # a subclass of one's own called AdamW
        p.sub_(group["lr"] * m / (v.sqrt() + eps))       # bias correction forgotten
Repaired
    class MyOwn(Optimizer): ...                          # another formula under a name of its own
Limits
    Fused optimizers that unscale inside their step, and gradients changed by the optimizer's own hooks, are not judged; nor
    are classes called Muon that are not made from torch's, which average in several ways. A decay in the wrong place, of
    size lr · decay of the step, is below rounding here and is found by update-formula.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chainrule.checks.update.expected import Move, moves
from chainrule.checks.update.orthogonal_step import orthogonal_step
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.tolerance import unit
from chainrule.update_rules.adagrad import ADAGRAD
from chainrule.update_rules.adam import ADAM
from chainrule.update_rules.muon import MUON
from chainrule.update_rules.rmsprop import RMSPROP
from chainrule.update_rules.rule import EXACT
from chainrule.watch.observed import Observed

NAME = "step-mismatch"
STORING, MOMENTS = 4.0, 64.0  # in units of rounding
DIVIDING = (ADAM, RMSPROP, ADAGRAD)  # decay passes through the moments, and the step divides by their size


def judge(observed: Observed) -> Outcome:
    """Whether the recorded steps are those of the formula."""
    scaled = any(observed.of("scale"))
    seen = [m for m in moves(observed) if _judged(m) and not (scaled and m.settings.get("fused"))]
    if not seen:
        return NotRun("no step of an optimizer whose formula is known was looked at")
    wrong: dict[str, list[Move]] = {}
    for move in seen:
        if move.once(_excess) > 1:
            wrong.setdefault(move.record.optimizer, []).append(move)
    return [_finding(name, own, seen) for name, own in wrong.items()]


def _judged(move: Move) -> bool:
    if move.expected is None or move.rule is None:
        return False
    return move.rule.resolution == EXACT or (move.rule is MUON and issubclass(move.record.rule, torch.optim.Muon))


def _expected(move: Move) -> Tensor:
    assert move.expected is not None
    return move.cut(move.once(orthogonal_step).expected) if move.rule is MUON else move.expected


def _difference(move: Move) -> Tensor:
    return (_expected(move) - move.after.double()).abs()


def _excess(move: Move) -> float:
    """The largest difference in units of what is allowed."""
    if move.rule is MUON:
        return move.once(orthogonal_step).excess
    largest = move.size.max()
    allowed = STORING * move.rounding + MOMENTS * unit(move.before.dtype) * largest * _cancellation(move)
    return float((_difference(move) / allowed.clamp(min=1e-300)).max())


def _cancellation(move: Move) -> Tensor:
    """How much rounding grows where an L2 decay cancels the gradient, which the root of its square makes a full step again."""
    if move.rule not in DIVIDING:
        return torch.ones((), dtype=torch.float64)
    decay = float(move.settings.get("weight_decay") or 0.0) * move.before.double()
    grad = move.grad.double() * (-1 if move.settings.get("maximize") else 1)
    return (grad.abs() + decay.abs()) / (grad + decay).abs().clamp(min=1e-300)


def _finding(name: str, wrong: list[Move], seen: list[Move]) -> Finding:
    move = max(wrong, key=_excess)
    assert move.rule is not None
    place = int(_difference(move).argmax())
    theirs = float(move.step.flatten()[place])
    ours = float((_expected(move) - move.before.double()).flatten()[place])
    paths = list(dict.fromkeys(m.path for m in wrong))
    return Finding(
        check=NAME,
        severity="warning",
        where=move.path,
        source=move.record.line,
        message=f"a step of {name} is not that of {move.rule.name}: {move.path} moved by {theirs:.3g} where the formula "
        f"gives {ours:.3g}",
        evidence={"optimizer": name, "step": move.record.number, "parameters": paths[:50], "excess": _excess(move)},
        rows=(
            ("moved by", f"{theirs:+.6e}", f"worst entry of {move.path}, step {move.record.number}"),
            (f"formula of {move.rule.name}", f"{ours:+.6e}", f"{_excess(move):.1e} times what rounding allows"),
        ),
        notes=(
            f"{len(paths)} of {len({m.path for m in seen})} parameters differ. Something else changes parameters or gradients "
            "inside of the step, or the class has another formula than its name says.",
        ),
    )
