"""Checks of the order of calls in the training loop."""

from __future__ import annotations

from typing import Any

JUDGES: tuple[Any, ...] = ()
