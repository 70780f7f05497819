"""Checks of which tensors are parameters, reach the loss, and are held by the optimizer."""

from __future__ import annotations

from typing import Any

CHECKS: tuple[Any, ...] = ()
