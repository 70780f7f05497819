"""The checks of the gradient that are no stage of the proof: what cuts it, what a second pass does to it, how steady it is."""

from __future__ import annotations

from typing import Any

from chainrule.checks.gradient import awkward_shapes, cut_gradient, kinks_and_ties, nondeterministic, wrong_second_pass

EXTRA: tuple[Any, ...] = (cut_gradient, wrong_second_pass, nondeterministic, awkward_shapes, kinks_and_ties)
