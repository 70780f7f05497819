"""Checks of which inputs an output depends on, read from gradients."""

from __future__ import annotations

from typing import Any

from chainrule.checks.dependence import (
    batch_leak,
    document_leak,
    future_leak,
    padding_influence,
    scrambled_heads,
    target_alignment,
)

CHECKS: tuple[Any, ...] = (future_leak, target_alignment, batch_leak, padding_influence, document_leak, scrambled_heads)
