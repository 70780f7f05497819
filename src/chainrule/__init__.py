"""chainrule: training in which every gradient can be seen and proved.

The public names are loaded when they are first used (PEP 562), so that `import chainrule` and `chainrule --help` do not
import torch.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.api import backward_source as backward_source
    from chainrule.api import capture as capture
    from chainrule.api import check as check
    from chainrule.api import check_loss as check_loss
    from chainrule.api import compiled as compiled
    from chainrule.api import numerical_gradient as numerical_gradient
    from chainrule.api import plan as plan
    from chainrule.api import predict as predict
    from chainrule.api import train as train
    from chainrule.api import value_and_grad as value_and_grad
    from chainrule.errors import ChainruleError as ChainruleError
    from chainrule.finding import Finding as Finding
    from chainrule.live import watch as watch
    from chainrule.report import Report as Report
    from chainrule.setups import Setup as Setup

_HOME = MappingProxyType(
    {
        "ChainruleError": "chainrule.errors",
        "Finding": "chainrule.finding",
        "Report": "chainrule.report",
        "Setup": "chainrule.setups",
        "backward_source": "chainrule.api",
        "capture": "chainrule.api",
        "check": "chainrule.api",
        "check_loss": "chainrule.api",
        "compiled": "chainrule.api",
        "numerical_gradient": "chainrule.api",
        "plan": "chainrule.api",
        "predict": "chainrule.api",
        "train": "chainrule.api",
        "value_and_grad": "chainrule.api",
        "watch": "chainrule.live",
    }
)

__all__ = [
    "ChainruleError",
    "Finding",
    "Report",
    "Setup",
    "backward_source",
    "capture",
    "check",
    "check_loss",
    "compiled",
    "numerical_gradient",
    "plan",
    "predict",
    "train",
    "value_and_grad",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("chainrule")
    if name not in _HOME:
        raise AttributeError(f"module 'chainrule' has no attribute {name!r}; public are {', '.join(__all__)}")
    before = random.getstate()
    try:
        return getattr(import_module(_HOME[name]), name)
    finally:
        random.setstate(before)  # rich draws from it when it is imported; the user's stream is not ours to move


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """`chainrule.capture` is the function, although a room has the same name.

    The import system binds a room as an attribute of its package when the room is first imported; that would hide the
    function of the same name from then on. `from chainrule.capture import ...` does not use the attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
