"""A step that is looked at closely: everything about it copied for the judges."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from chainrule.finding import Line
from chainrule.watch.observed import StepRecord

SMALLEST_BUDGET = 32 * 2**20  # bytes of parameters that may be copied in any case
WRAPPER = Optimizer.profile_hook_step.__code__.co_filename
SHARE = 0.01  # of a large model's parameters, so that five copies of them take at most 5 % more memory


def norm(tensors: Iterable[Tensor | None]) -> float | None:
    """L2 norm of all tensors together; None if there is none."""
    present = [tensor.detach() for tensor in tensors if tensor is not None]
    if not present:
        return None
    dense = [tensor.coalesce().values() if tensor.is_sparse else tensor for tensor in present]
    norms = torch._foreach_norm(dense) if len({t.device for t in dense}) == 1 else [t.norm() for t in dense]
    return float(sum(float(n) ** 2 for n in norms) ** 0.5)


def steps_open(optimizer: Optimizer) -> int:
    """How many calls of this optimizer's step are running now, one inside the other: torch's wrappers on the stack."""
    count, frame = 0, inspect.currentframe()
    while frame is not None:
        wraps = frame.f_code.co_name == "wrapper" and frame.f_code.co_filename == WRAPPER
        count += wraps and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return count


def affordable(parameters: Mapping[str, tuple[int, Tensor]]) -> dict[str, tuple[int, Tensor]]:
    """All parameters of a small model; of a large one the smaller, as many as the budget holds."""
    sizes = {path: parameter.numel() * parameter.element_size() for path, (_, parameter) in parameters.items()}
    left = max(SMALLEST_BUDGET, SHARE * sum(sizes.values()))
    kept = {}
    for path in sorted(sizes, key=lambda path: sizes[path]):
        left -= sizes[path]
        if left < 0:
            break
        kept[path] = parameters[path]
    return {path: parameters[path] for path in parameters if path in kept}


class StepLook:
    """One step seen before and after: `StepRecord` is what is left of it."""

    def __init__(self, optimizer: Optimizer, name: str, number: int, parameters: Mapping[str, tuple[int, Tensor]]):
        self._optimizer, self._name, self._number = optimizer, name, number
        self.parameters = affordable(parameters)
        self._settings = tuple(
            {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        )
        self._before = self._values()
        self._gradients = {path: _copied(parameter.grad) for path, (_, parameter) in self.parameters.items()}
        self._state = self._states()

    def finished(self, line: Line | None, loss: float | None) -> StepRecord:
        """What the step did."""
        return StepRecord(
            number=self._number,
            optimizer=self._name,
            rule=type(self._optimizer),
            settings=self._settings,
            group={path: group for path, (group, _) in self.parameters.items()},
            before=self._before,
            gradients=self._gradients,
            after=self._values(),
            state_before=self._state,
            state_after=self._states(),
            line=line,
            loss=loss,
        )

    def _values(self) -> dict[str, Tensor]:
        return {path: parameter.detach().clone() for path, (_, parameter) in self.parameters.items()}

    def _states(self) -> dict[str, Mapping[str, Any]]:
        state = self._optimizer.state
        return {
            path: {key: _copied(value) for key, value in state.get(parameter, {}).items()}
            for path, (_, parameter) in self.parameters.items()
        }


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
