"""Every error that chainrule raises on purpose; a finding about the user's model is not an error but a `Finding`.

    ChainruleError                 the root: catch this one; the CLI turns it into exit code 2
    ├── SetupError                 the model, loss, batch or FILE.py handed to us cannot be used
    ├── CaptureError               no graph can be made of loss(model, batch); names the line and the reason
    ├── RuleError                  a derivative rule is written wrongly; raised where it is registered
    ├── MissingRuleError           an op on the gradient path has no derivative rule
    ├── ConfigError                a flag, a TOML file or a field of it is wrong
    ├── DataError                  a text or table file cannot be read or holds too little
    ├── CheckpointError            a run folder is damaged or belongs to another run
    └── NonFiniteError             loss or gradient became inf or nan; training stopped before the update

A message says what was seen, where, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], otherwise: str, *, show: Callable[[str], str] = str) -> str:
    """The end of a message about an unknown name: the nearest known one by spelling, as `show` writes it, or `otherwise`."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {show(near[0])}?" if near else otherwise


class ChainruleError(Exception):
    """Root of all errors that chainrule raises on purpose."""


class SetupError(ChainruleError):
    """The model, loss, batch, optimizer or file handed to us cannot be used."""


class CaptureError(ChainruleError):
    """No graph can be made of `loss(model, batch)`."""


class RuleError(ChainruleError):
    """A derivative rule is written wrongly; raised when it is registered, not at step 10,000."""


class MissingRuleError(ChainruleError):
    """An op on the gradient path has no derivative rule."""


class ConfigError(ChainruleError):
    """A flag, a TOML file or one of its fields is wrong."""


class DataError(ChainruleError):
    """A data file cannot be read, or holds too little to train on."""


class CheckpointError(ChainruleError):
    """A checkpoint is damaged, incomplete, or belongs to another run."""


class NonFiniteError(ChainruleError):
    """Loss or gradient became inf or nan; nothing was updated."""
