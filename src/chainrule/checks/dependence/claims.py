"""Whether a model is meant to be causal: declared, read from what its loss asks for, or guessed from its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from chainrule.capture.batches import tensors_of
from chainrule.checks.copies import Copies
from chainrule.checks.dependence.alignment import Alignment, alignment_of
from chainrule.checks.dependence.layout import is_time_first
from chainrule.checks.dependence.taps import Run
from chainrule.setups import Setup

_NAMES = re.compile(r"(ForCausalLM|LMHeadModel|DecoderLM)$")


@dataclass(frozen=True, eq=False)
class Reading:
    """What a run tells about the order of positions.

    sure        True if causality is declared, or if the loss asks each position for the token that comes next
    why         the reason, in words; "" if there is none to take the model for causal
    """

    alignment: Alignment | None
    time_first: bool
    sure: bool
    why: str


def reading_of(run: Run, copies: Copies, setup: Setup) -> Reading:
    """The reading of a run of the set-up."""
    integers = [tensor for tensor in tensors_of(copies.batch).values() if not tensor.is_floating_point()]
    time_first = is_time_first(run, [t for t in integers if t.dtype is not torch.bool])
    alignment = alignment_of(run, time_first=time_first)
    offset = alignment.offset if alignment else None
    if setup.causal:
        return Reading(alignment, time_first, sure=True, why="Setup.causal=True")
    if offset == 1:
        return Reading(alignment, time_first, sure=True, why="its loss asks each position for the next token")
    named = why_named(copies.model) if offset != 0 else ""
    return Reading(alignment, time_first, sure=False, why=named)


def why_named(model: nn.Module) -> str:
    """Why the model's class or configuration says that it is causal; "" if they do not."""
    name, config = type(model).__name__, getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return ""
    if _NAMES.search(name):
        return f"its class is called {name}"
    return "config.is_decoder is True" if getattr(config, "is_decoder", False) is True else ""
