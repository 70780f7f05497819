"""incomplete-resume: training goes on from a saved model without the optimizer's state.

What it checks
    Where a file with a model and an optimizer is loaded, both are put back before the next step; a checkpoint that notes the
    epoch or the step holds an optimizer too.
Why it matters
    Without its moments Adam begins again with steps of full length in directions of single batches: the loss jumps after each
    resume, and a run that is often interrupted never gets past it.
How it decides
    A file with the key of an optimizer was loaded and a model from it, but the optimizer, which keeps a state, made its next
    step with none; or the model was loaded in the middle of the run and a new optimizer of the same class went on. A saved
    dictionary with `epoch` or `step` and a model but no optimizer. Warnings: a fresh start can be meant.
Broken
    model.load_state_dict(torch.load("last.pt")["model"])
Repaired
    state = torch.load("last.pt")
    model.load_state_dict(state["model"]); optimizer.load_state_dict(state["optimizer"])
Limits
    Files read by torch.load. Random generators and the position in the data are not looked at.
"""

from __future__ import annotations

from chainrule.finding import Finding, NotRun, Outcome
from chainrule.watch.observed import Event, Observed, StepRecord

NAME = "incomplete-resume"
PROGRESS = ("epoch", "step", "iteration", "global_step", "iter_num", "iter")


def judge(observed: Observed) -> Outcome:
    """Whether what a resumed run needs was saved and put back."""
    files = list(observed.of("save", "load"))
    if not files:
        return NotRun("nothing was saved or loaded")
    found = [_saved(event) for event in files if _is_half_a_checkpoint(event)][:1]
    return found + [_lost(*lost) for lost in _without_state(observed)][:1]


def _keys(event: Event) -> list[str]:
    keys = event.numbers.get("keys")
    return [key.lower() for key in keys if "/" not in key] if isinstance(keys, list) else []


def _has_optimizer(event: Event) -> bool:
    return any("optim" in key or key in ("opt", "trainer") for key in _keys(event))


def _is_half_a_checkpoint(event: Event) -> bool:
    keys = _keys(event)
    model = any("model" in key or "state_dict" in key or "net" in key for key in keys)
    return event.kind == "save" and model and any(key in PROGRESS for key in keys) and not _has_optimizer(event)


def _without_state(observed: Observed) -> list[tuple[Event, str]]:
    """(the load of the model, the optimizer that went on with no state)."""
    found = []
    for position, event in enumerate(observed.events):
        if event.kind != "load" or event.numbers.get("what") != "model":
            continue
        earlier, later = observed.events[:position], observed.events[position:]
        step = next((e for e in later if e.kind == "step"), None)
        if step is not None and _resumes(earlier, step) and not _restored(later, step):
            found.append((event, step.who))
    return [(event, who) for event, who in found if _keeps_a_state(observed, who)]


def _resumes(earlier: list[Event], step: Event) -> bool:
    files = [e for e in earlier if e.kind == "load" and e.numbers.get("what") == "file"]
    stepped = {e.who for e in earlier if e.kind == "step"}
    again = step.who not in stepped and any(who.partition("[")[0] == step.who.partition("[")[0] for who in stepped)
    saved = any(e.kind == "save" for e in earlier)
    return (bool(files) and _has_optimizer(files[-1]) and step.who not in stepped) or (again and saved)


def _restored(later: list[Event], step: Event) -> bool:
    until = later[: later.index(step)]
    return any(e.kind == "load" and e.numbers.get("what") == "optimizer" and e.who == step.who for e in until)


def _keeps_a_state(observed: Observed, who: str) -> bool:
    first = [record for record in observed.steps if record.optimizer == who and record.number == 1]
    return any(_begins_empty(record) for record in first) if first else True


def _begins_empty(record: StepRecord) -> bool:
    moments = [value for state in record.state_after.values() for value in state.values() if getattr(value, "ndim", 0)]
    return bool(moments) and not any(record.state_before.values())


def _lost(event: Event, who: str) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where=who,
        source=event.line,
        message=f"the model is loaded and {who} goes on without the state that it had",
        evidence={"update": event.update, "optimizer": who},
        notes=("Save and load optimizer.state_dict() (and those of scheduler and scaler) beside the model's.",),
    )


def _saved(event: Event) -> Finding:
    return Finding(
        check=NAME,
        severity="warning",
        where="checkpoint",
        source=event.line,
        message="the checkpoint holds the model and how far it is, but no state of an optimizer",
        evidence={"keys": _keys(event)[:50]},
        notes=('Add "optimizer": optimizer.state_dict(), or a resumed run begins with empty moments.',),
    )
