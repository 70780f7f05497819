"""target-alignment: a language model's logits are pulled to the wrong position's token: its own, or the one after the next.

What it checks
    Which input token each position's logits are pulled to: that of the next position, as a language model needs it.
Why it matters
    Labels that are shifted by the batch and again by the model teach the token after the next; labels that are not shifted
    at all teach to repeat the input. The loss falls in both cases, in the second one to zero.
How it decides
    The lowest entry of dL/dlogits at a position is the token that it is pulled to. It is compared with the inputs at t,
    t + 1 and t + 2, where these three differ; 90 % at one offset decide. t + 2, or t in a model that cannot see later
    tokens, is an error if causality is declared or the class says so, else a warning. A model that sees all positions and
    is asked for its own token is a masked one, and is left alone.
Broken
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())   # labels are ids[:, 1:] already
Repaired
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
Limits
    Needs logits of shape (B, T, V) or (B, V, T) from the model, and token ids that an embedding looks up. A loss of several
    terms is read by the strongest pull.
"""

from __future__ import annotations

from chainrule.checks.copies import Copies
from chainrule.checks.dependence.alignment import Alignment
from chainrule.checks.dependence.claims import Reading, reading_of, why_named
from chainrule.checks.dependence.future_leak import Leak, leaks, pairs_of
from chainrule.checks.dependence.locate import ROUNDING
from chainrule.checks.dependence.taps import Run, on_tapped_copies, run
from chainrule.checks.subject import Subject, line_of
from chainrule.finding import Finding, Line, NotRun, Outcome
from chainrule.graph import op_name

NAME = "target-alignment"
_LOSSES = ("cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d", "nll_loss_forward", "gather")


def check(subject: Subject) -> Outcome:
    """One finding if the targets lie at another offset than one."""
    return on_tapped_copies(subject, _look)


def _look(subject: Subject, copies: Copies) -> Outcome:
    result = run(copies)
    if result is None:
        return NotRun("the loss does not call the model as a whole, or its output carries no gradient")
    reading = reading_of(result, copies, subject.setup)
    alignment = reading.alignment
    if alignment is None:
        return NotRun("the model's output is no logits over the tokens of its input, position by position")
    if alignment.offset in (None, 1) or (alignment.offset == 0 and not _is_causal(subject, result, reading)):
        return []
    return [_finding(subject, copies, alignment)]


def _is_causal(subject: Subject, result: Run, reading: Reading) -> bool:
    """True if no output was seen to depend on a later input."""
    found: list[Leak] = []
    for tap, axes in pairs_of(result, reading):
        found += leaks(subject, result, tap, axes)
    return bool(found) and max(leak.ratio for leak in found) <= ROUNDING


def _finding(subject: Subject, copies: Copies, alignment: Alignment) -> Finding:
    sure = bool(subject.setup.causal or why_named(copies.model))
    wrong = "its own input" if alignment.offset == 0 else "the token after the next"
    cure = (
        "Shift the labels by one: logits at t against the token at t + 1."
        if alignment.offset == 0
        else "The labels are shifted twice: by the batch and again by the model or the loss. Shift them once."
    )
    return Finding(
        check=NAME,
        severity="error" if sure else "warning",
        where=type(copies.model).__name__,
        source=_loss_line(subject),
        message=f"the model is taught {wrong}, not the next token",
        evidence={
            "offset": alignment.offset,
            "positions": alignment.positions,
            "fractions": {str(k): fraction for k, fraction in alignment.fractions.items()},
        },
        rows=tuple(
            (f"pulled to the token at t + {k}", f"{fraction:.1%}", f"of {alignment.positions:,} positions")
            for k, fraction in alignment.fractions.items()
        ),
        notes=(cure,),
        reproduce=subject.reproduce(NAME),
    )


def _loss_line(subject: Subject) -> Line | None:
    nodes = [node for node in subject.graph.nodes if op_name(node.op) in _LOSSES]
    return line_of(nodes[-1].source) if nodes else None
