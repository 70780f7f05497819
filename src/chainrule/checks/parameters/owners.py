"""Who holds which tensor: the model's parameters by path, the optimizer's tensors, and paths told in few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from torch import Tensor, nn

from chainrule.setups import Setup
from chainrule.watch.names import held_by

MOST = 3  # paths that are named one by one


def parameters_of(setup: Setup) -> dict[str, nn.Parameter]:
    """Path -> parameter of model and loss, tied ones once."""
    model = setup.module
    named = dict(model.named_parameters())
    if isinstance(setup.loss, nn.Module):
        known = {id(parameter) for parameter in named.values()}
        of_loss = setup.loss.named_parameters()
        named |= {f"loss.{path}": parameter for path, parameter in of_loss if id(parameter) not in known}
    return named


def trained(setup: Setup) -> dict[str, nn.Parameter]:
    """The parameters that training is to move: those that require grad and, if there is an optimizer, are held by it."""
    held = {id(tensor) for tensor in held_by(*setup.optimizers)} if setup.optimizers else None
    return {
        path: parameter
        for path, parameter in parameters_of(setup).items()
        if parameter.requires_grad and (held is None or id(parameter) in held)
    }


def called(setup: Setup) -> str:
    """The optimizers by their classes: "AdamW", "Muon and AdamW"."""
    return " and ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in setup.optimizers))


def place(paths: Sequence[str]) -> str:
    """One path as it is; of several the module that they share, or the first."""
    if len(paths) == 1:
        return paths[0]
    steps = zip(*(path.split(".") for path in paths), strict=False)
    shared = [step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps)]
    return ".".join(shared) or paths[0]


def listed(paths: Sequence[str]) -> str:
    """The paths in words, at most three by name."""
    named = ", ".join(paths[:MOST])
    return named if len(paths) <= MOST else f"{named} and {len(paths) - MOST:,} more"


def entries(tensors: Iterable[Tensor]) -> int:
    """Number of entries in all of them."""
    return sum(tensor.numel() for tensor in tensors)


def by_identity(named: Mapping[str, Tensor]) -> dict[int, str]:
    """id of a tensor -> its path."""
    return {id(tensor): path for path, tensor in named.items()}
