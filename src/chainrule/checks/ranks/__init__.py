"""Checks of what the ranks of a distributed run do, each beside the others."""

from __future__ import annotations

from typing import Any

from chainrule.checks.ranks import collective_mismatch, detached_ddp, replica_drift, same_batch_on_ranks

JUDGES: tuple[Any, ...] = (detached_ddp, replica_drift, same_batch_on_ranks, collective_mismatch)
