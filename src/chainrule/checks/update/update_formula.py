"""update-formula: the optimizer's step is not what its name promises.

What it checks
    Three real steps of a small float64 copy of the optimizer, with made-up gradients large and small, a large rate that
    changes from step to step and a large decay, equal the formula of its paper. torch's classes are known by themselves; a
    class of one's own by its name (MyAdamW promises AdamW) or, failing that, by settings that fit one.
Why it matters
    A decay in the wrong place, a forgotten bias correction or a sign trains, only worse. At a rate of 1e-3 it is as small as
    rounding and nobody sees it.
How it decides
    Each entry: |formula - step| <= 16 u(float32) · (|p| + |step|), so that an optimizer that computes inside in float32 is no
    fault; for Muon a fifth of the step's norm, since Newton-Schulz runs in bfloat16. If the promised formula does not fit,
    all others that the settings suffice for are tried, and the one that fits is named. A convention that is only disputed
    is a warning, as is a fault that the user's own settings (no decay) leave without effect.
Broken
    p.add_(p, alpha=group["lr"] * group["weight_decay"])                 # AdamW whose weights grow
Repaired
    p.add_(p, alpha=-group["lr"] * group["weight_decay"])
Limits
    Parameters of more than 9,216 entries are tried cut; sparse, complex and closure-driven optimizers are not tried.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer

from chainrule.checks.subject import Subject
from chainrule.checks.update.small_copy import CannotCopyError, settings_of
from chainrule.checks.update.trial import DECAY, Misfit, Track, misfit, misfit_of, tried
from chainrule.finding import Finding, Line, NotRun, Outcome, Severity
from chainrule.update_rules import OF_TORCH, UpdateRule, claimed_by, possible, rule_of_torch, suffices

NAME = "update-formula"
PURPOSE = 61  # of the random numbers


def check(subject: Subject) -> Outcome:
    """The optimizer's real steps against the formula that it promises."""
    if not subject.setup.optimizers:
        return NotRun("no optimizer was given", missing=True)
    outcomes = [_of_one(subject, optimizer) for optimizer in subject.setup.optimizers]
    made = [finding for outcome in outcomes if not isinstance(outcome, NotRun) for finding in outcome]
    refused = [outcome for outcome in outcomes if isinstance(outcome, NotRun)]
    return refused[0] if len(refused) == len(outcomes) else made


def _of_one(subject: Subject, optimizer: Optimizer) -> Outcome:
    claimed, settings = promised(optimizer), settings_of(optimizer.param_groups[0])
    candidates = possible(settings)
    if not candidates or (claimed is None and type(optimizer).__module__.startswith("torch.")):
        return NotRun(f"no formula of {type(optimizer).__name__} is known")
    try:
        tracks = _tracks(optimizer, subject.generator(PURPOSE), claimed, decay=DECAY)
        if claimed is not None and misfit(claimed, tracks) is None:
            return []
        fewest = min(track[0].before.ndim for track in tracks)
        candidates = [rule for rule in candidates if rule is not claimed and rule.dimensions <= fewest]
        equal = next((rule for rule in candidates if misfit(rule, tracks) is None), None)
        if claimed is None and (equal is None or equal.standing == "standard"):
            return [] if equal else NotRun(f"no formula of {type(optimizer).__name__} is known")
        own = _tracks(optimizer, subject.generator(PURPOSE), claimed, decay=None)
    except CannotCopyError as error:
        return NotRun(str(error))
    standard = claimed or next(rule for rule in candidates if equal and _is_standard_of(rule, equal))
    return [_finding(subject, optimizer, claimed, standard, equal, tracks, own)]


def promised(optimizer: Optimizer) -> UpdateRule | None:
    """The formula that the class promises by what it is or by its name."""
    known = rule_of_torch(type(optimizer), optimizer.param_groups[0])
    claimed = known or claimed_by(type(optimizer).__name__)
    return claimed if claimed is not None and suffices(claimed, optimizer.param_groups[0]) else None


def _is_standard_of(rule: UpdateRule, reading: UpdateRule) -> bool:
    return rule.standing == "standard" and reading.family in (rule.name, rule.family)


def _tracks(
    optimizer: Optimizer, generator: torch.Generator, claimed: UpdateRule | None, *, decay: float | None
) -> list[Track]:
    orthogonal = bool(claimed and claimed.resolution) or "ns_steps" in optimizer.param_groups[0]
    return tried(optimizer, generator, decay=decay, plain=orthogonal)


def _finding(
    subject: Subject,
    optimizer: Optimizer,
    claimed: UpdateRule | None,
    standard: UpdateRule,
    equal: UpdateRule | None,
    tracks: list[Track],
    own: list[Track],
) -> Finding:
    worst, name = misfit(standard, tracks), type(optimizer).__name__
    assert worst is not None
    harmless = misfit(standard, own) is None
    shapes = _by_shape(standard, tracks) if equal is None else ""
    return Finding(
        check=NAME,
        severity="warning" if harmless else _severity(optimizer, claimed, equal, partly=bool(shapes)),
        where=name,
        source=_line(optimizer),
        message=_message(name, standard, equal, shapes),
        evidence={
            "promised": standard.name,
            "equals": equal.name if equal else None,
            "relative": worst.relative,
            "step": worst.step,
            "shape": list(worst.shape),
        },
        rows=_rows(worst, standard, equal),
        notes=_notes(equal, harmless),
        reproduce=subject.reproduce(NAME),
    )


def _severity(optimizer: Optimizer, claimed: UpdateRule | None, equal: UpdateRule | None, *, partly: bool) -> Severity:
    if type(optimizer) in OF_TORCH:
        return "error"
    if claimed is None or (equal is not None and equal.standing == "disputed"):
        return "warning"
    if equal is None:
        return "error" if partly else "warning"
    # A class called Adam that decouples its decay is a habit; one called AdamW that does not is no AdamW.
    return "error" if equal.standing == "wrong" or claimed.name == "AdamW" else "warning"


def _message(name: str, standard: UpdateRule, equal: UpdateRule | None, shapes: str) -> str:
    if equal is not None:
        return f"the step of {name} is not that of {standard.name}: it equals {equal.name}"
    if shapes:
        return f"the step of {name} is that of {standard.name} only for some shapes: {shapes}"
    return f"the step of {name} is not that of {standard.name}, nor any other that is known"


def _by_shape(standard: UpdateRule, tracks: list[Track]) -> str:
    """Which shapes it gets right and which not; "" if all alike."""
    verdicts = {tuple(track[0].before.shape): misfit_of(standard, track) is None for track in tracks}
    if len(set(verdicts.values())) < 2:
        return ""
    right = ", ".join(str(shape) for shape, fine in verdicts.items() if fine)
    wrong = ", ".join(str(shape) for shape, fine in verdicts.items() if not fine)
    return f"right for {right}, wrong for {wrong}"


def _rows(worst: Misfit, standard: UpdateRule, equal: UpdateRule | None) -> tuple[tuple[str, str, str], ...]:
    place = f"step {worst.step}, worst entry of a {worst.shape} parameter"
    remark = f"{worst.relative:.1e} of the step apart" + (f"; equals {equal.name}" if equal else "")
    return (
        ("your optimizer", f"{worst.theirs:+.6e}", place),
        (f"formula of {standard.name}", f"{worst.ours:+.6e}", remark),
    )


def _notes(equal: UpdateRule | None, harmless: bool) -> tuple[str, ...]:
    remark = equal.remark if equal else "Compare its step with the formula line by line, or give it a name of its own."
    own = "With the settings that you use (no weight decay) it makes no difference yet." if harmless else ""
    return tuple(note for note in (remark, own) if note)


def _line(optimizer: Optimizer) -> Line | None:
    """Where the user's class defines its step; None for torch's own."""
    step = inspect.unwrap(type(optimizer).step)
    try:
        lines, number = inspect.getsourcelines(step)
    except (OSError, TypeError):
        return None
    inside = type(optimizer).__module__.startswith("torch.")
    named = next((offset for offset, line in enumerate(lines) if "def " in line), 0)
    return None if inside else Line(inspect.getfile(step), number + named, lines[named].strip())
