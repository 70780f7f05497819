"""Whether the user's loss of a batch is finite, run on the user's own model with everything put back."""

from __future__ import annotations

from typing import Any

import torch

from chainrule.capture.preserve import preserved
from chainrule.checks.subject import Subject


def finite_loss(subject: Subject, batch: Any) -> bool:
    """True if the loss of this batch is finite, or cannot be computed at all (then it raises, and is not silent)."""
    setup = subject.setup
    model = getattr(setup.model, "_orig_mod", setup.model)
    with preserved(model, setup.loss, batch, contents=True), torch.no_grad():
        torch.manual_seed(subject.seed)
        try:
            return bool(torch.isfinite(torch.as_tensor(setup.loss(model, batch))).all())
        except Exception:  # whatever the user's code raises
            return True
