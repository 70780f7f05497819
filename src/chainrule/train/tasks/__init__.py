"""The kinds of task that a run can have, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from chainrule.train.task import Kind
from chainrule.train.tasks.table import TABLE
from chainrule.train.tasks.text import TEXT
from chainrule.train.tasks.words import WORDS

KINDS: Mapping[str, Kind] = MappingProxyType(
    {"text": TEXT, "table": TABLE, "words": WORDS}
)  # TrainConfig.task -> how it is made
