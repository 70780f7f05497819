"""What reports call the things of a loop: parameters by their path, optimizers and loaders by their class."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from chainrule.setups import uncompiled


class Names:
    """Paths of parameters, and a name for every optimizer, loader and scaler, in the order in which they are met."""

    def __init__(self, models: Iterable[nn.Module] = ()) -> None:
        self._paths: dict[int, str] = {}
        self._things: dict[int, tuple[str, Any]] = {}  # the thing is kept, so that its id stays its own
        self._searched = False
        self.learn(models)

    def learn(self, models: Iterable[nn.Module]) -> None:
        """Take the paths of the models' parameters; the class's name comes first where there are several models."""
        known = list(models)
        for model in known:
            prefix = f"{type(inner(model)).__name__}." if len(known) > 1 else ""
            for path, parameter in inner(model).named_parameters(remove_duplicate=False):
                self._paths.setdefault(id(parameter), prefix + path)

    def parameter(self, parameter: Any, position: str) -> str:
        """The parameter's path in its model; its place in the optimizer where no model is known to hold it."""
        if id(parameter) not in self._paths and not self._searched:
            self._searched = True
            self.learn(roots_of([parameter]))
        return self._paths.get(id(parameter), position)

    def of(self, thing: Any) -> str:
        """`Adam`, and `Adam[1]` for the second of its class."""
        if id(thing) not in self._things:
            name = type(thing).__name__
            before = sum(known.partition("[")[0] == name for known, _ in self._things.values())
            self._things[id(thing)] = (f"{name}[{before}]" if before else name, thing)
        return self._things[id(thing)][0]

    def parameters(self, optimizer: Optimizer) -> dict[str, tuple[int, Any]]:
        """path -> (number of its group, parameter) for all that the optimizer holds."""
        return {
            self.parameter(parameter, f"{self.of(optimizer)}.param_groups[{g}][{i}]"): (g, parameter)
            for g, group in enumerate(optimizer.param_groups)
            for i, parameter in enumerate(group["params"])
        }


def held_by(*optimizers: Optimizer) -> list[Any]:
    """The optimizers' tensors, in their groups' order; one that is held twice comes twice."""
    return [tensor for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"]]


def roots_of(parameters: Iterable[Any]) -> list[nn.Module]:
    """The outermost living modules that hold any of the parameters; the larger first."""
    wanted = {id(parameter) for parameter in parameters}
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    inner = {id(child) for module in modules for child in vars(module).get("_modules", {}).values()}
    roots = [module for module in modules if id(module) not in inner and "_parameters" in vars(module)]
    holding = [root for root in roots if any(id(parameter) in wanted for parameter in root.parameters())]
    return sorted(holding, key=lambda root: -sum(1 for _ in root.parameters()))


def inner(model: nn.Module) -> nn.Module:
    """What torch.compile and DistributedDataParallel wrapped."""
    while (unwrapped := uncompiled(unreplicated(model))) is not model:
        model = unwrapped
    return model


def unreplicated(model: nn.Module) -> nn.Module:
    """What DistributedDataParallel wrapped; any other model is itself."""
    module: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return module
