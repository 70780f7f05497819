"""epsilon-dominates: the ε of an adaptive optimizer is larger than the gradients, which makes it plain gradient descent.

What it checks
    How many entries have a root mean square gradient below a tenth of ε.
Why it matters
    Adam divides by √v̂ + ε so that every entry moves at the rate whatever its gradient's size. With ε above the gradients it
    divides by ε: steps are γ g/ε, shrink with the gradient, and differ between layers as gradients do.
How it decides
    Nine tenths of the entries with a gradient, in every step that was looked at, two at least, for Adam, AdamW and RMSprop: a
    warning, for a large ε is chosen on purpose now and then.
Broken
    torch.optim.Adam(model.parameters(), lr=1e-3, eps=1.0)
Repaired
    torch.optim.Adam(model.parameters(), lr=1e-3)                       # ε = 1e-8
Limits
    State under torch's own names. Gradients that a loss scaled down makes small look the same.
"""

from __future__ import annotations

from torch import Tensor

from chainrule.checks.update.expected import Move, moves
from chainrule.finding import Finding, NotRun, Outcome
from chainrule.update_rules.adam import corrected_second
from chainrule.update_rules.rule import number
from chainrule.watch.observed import Observed

NAME = "epsilon-dominates"
SHARE, BELOW, STEPS = 0.9, 0.1, 2


def judge(observed: Observed) -> Outcome:
    """Whether ε decides the size of the steps."""
    seen = [(move, size) for move in moves(observed) if (size := move.once(_size)) is not None]
    by_step: dict[tuple[str, int], list[tuple[Move, Tensor]]] = {}
    for move, size in seen:
        by_step.setdefault((move.record.optimizer, move.record.number), []).append((move, size))
    found = []
    for name in dict.fromkeys(name for name, _ in by_step):
        steps = [own for (optimizer, _), own in by_step.items() if optimizer == name]
        shares = [_share(own) for own in steps]
        if len(shares) >= STEPS and min(shares) >= SHARE:
            found.append(_finding(name, steps[0], min(shares)))
    return found if by_step else NotRun("no optimizer with an ε was looked at")


def _size(move: Move) -> Tensor | None:
    """√v̂ after the step, for the entries that have a gradient; None for rules without it."""
    state = move.record.state_after.get(move.path) or {}
    square = state.get("exp_avg_sq", state.get("square_avg"))
    if (
        square is None
        or not isinstance(move.settings.get("eps"), float)
        or square.shape != move.record.before[move.path].shape
    ):
        return None
    if "exp_avg_sq" in state and "betas" in move.settings and number(state, "step") > 0:
        square = corrected_second(state, move.settings)
    size: Tensor = move.cut(square).double().sqrt()[move.grad != 0]
    return size if size.numel() else None


def _share(own: list[tuple[Move, Tensor]]) -> float:
    below = sum(int((size < BELOW * number(move.settings, "eps")).sum()) for move, size in own)
    return below / sum(size.numel() for _, size in own)


def _finding(name: str, own: list[tuple[Move, Tensor]], share: float) -> Finding:
    move, size = own[0]
    eps = number(move.settings, "eps")
    return Finding(
        check=NAME,
        severity="warning",
        where=name,
        source=move.record.line,
        message=f"ε = {eps:g} of {name} is above the gradients of {share:.0%} of the entries: it acts as plain gradient descent",
        evidence={"optimizer": name, "eps": eps, "share": share},
        rows=(
            ("root mean square gradient", f"{float(size.median()):.1e}", f"median over {move.path}"),
            ("ε", f"{eps:g}", f"steps are those of a rate of {move.rate / eps:.2g} without Adam's division"),
        ),
        notes=("Take an ε well below the gradients, 1e-8 by default, or raise the loss if it is scaled down.",),
    )
