"""The checks of the gradient that are no stage of the proof: what cuts it, what a second pass does to it, how steady it is."""

from __future__ import annotations

from typing import Any

from chainrule.checks.gradient import cut_gradient

EXTRA: tuple[Any, ...] = (cut_gradient,)
