"""Whether the user's loss of a batch is finite, run on copies."""

from __future__ import annotations

import math
from typing import Any

from chainrule.checks.copies import on_copies
from chainrule.checks.subject import Subject


def finite_loss(subject: Subject, batch: Any) -> bool:
    """True if the loss of this batch is finite, or cannot be computed at all (then it raises, and is not silent)."""
    try:
        return on_copies(subject.setup, batch, lambda copies: math.isfinite(copies.value()), seed=subject.seed)
    except Exception:  # whatever the user's code raises
        return True
