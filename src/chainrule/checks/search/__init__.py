"""Checks of short trainings on a copy."""

from __future__ import annotations

from typing import Any

from chainrule.checks.search import learning_rate_range, overfit_one_batch

ON_REQUEST: tuple[Any, ...] = (overfit_one_batch, learning_rate_range)
