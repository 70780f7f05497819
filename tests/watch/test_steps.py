"""What an observer keeps of the steps that it saw."""

from __future__ import annotations

import torch

from chainrule.watch.observer import Observer
from chainrule.watch.steps import FORGETTING, KEPT_UPDATES


def test_events_of_a_long_stretch_without_a_close_look_are_forgotten() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with Observer().watching() as observed:
        for _ in range(3 * FORGETTING + 12):  # the last close look that may be made is the one at two times as many
            optimizer.step()
    assert [0, 1, 2, *range(3 * FORGETTING - KEPT_UPDATES, 3 * FORGETTING + 12)] == [
        e.update for e in observed.of("step")
    ]
