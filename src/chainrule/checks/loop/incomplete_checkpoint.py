"""incomplete-checkpoint: a saved state lacks parameters that are trained.

What it checks
    A saved state dictionary that holds most of the trained parameters holds all of them.
Why it matters
    A filter meant for tied or frozen weights drops a head that is not tied: the loaded model has a fresh one. strict=False on
    loading hides it.
How it decides
    At least half of the parameters that the optimizer moves are in the saved dictionary under their paths, and some are not. A
    warning: a part may be exported on purpose.
Broken
    torch.save({k: v for k, v in model.state_dict().items() if "lm_head" not in k}, path)
Repaired
    torch.save(model.state_dict(), path)
Limits
    Dictionaries of at most 1,000 names, saved by torch.save, under the names that the model itself gives.
"""

from __future__ import annotations

from collections.abc import Iterable

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed

NAME = "incomplete-checkpoint"
MOST, KEPT = 0.5, 1000


def judge(observed: Observed) -> Outcome:
    """Whether saved dictionaries hold all that is trained."""
    saved = [event for event in observed.of("save") if len(event.numbers.get("keys") or ()) < KEPT]
    trained = list(
        dict.fromkeys(path for record in observed.steps for path in record.before if "param_groups" not in path)
    )
    if not saved or not trained:
        return NotRun("nothing was saved" if not saved else "no step was looked at")
    lacking = [(event, missing) for event in saved if (missing := _missing(event, trained))]
    return [_finding(*lacking[0], len(trained))] if lacking else []


def _missing(event: Event, trained: list[str]) -> list[str]:
    """The trained parameters that the dictionary most like the model does not hold."""
    parts: dict[str, set[str]] = {}
    for key in event.numbers["keys"]:
        outer, _, inner = key.rpartition("/")
        parts.setdefault(outer, set()).add(inner)
    held = [_not_in(names, trained) for names in parts.values()]
    near = [missing for missing in held if len(missing) <= MOST * len(trained)]
    return min(near, key=len, default=[])


def _not_in(names: Iterable[str], trained: list[str]) -> list[str]:
    """By the whole path, or without the model's name that stands before it where there are several models."""
    plain = {name.removeprefix("module.").removeprefix("_orig_mod.") for name in names}
    return [path for path in trained if path not in plain and path.partition(".")[2] not in plain]


def _finding(event: Event, missing: list[str], trained: int) -> Finding:
    listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
    return Finding(
        check=NAME,
        severity="warning",
        where=missing[0],
        source=event.line,
        message=f"the saved state lacks {len(missing)} of {trained} trained parameters: {listed}",
        evidence={"missing": missing[:50], "trained": trained},
        notes=("Save model.state_dict() whole; leave out only what is tied to something that is saved.",),
    )
