"""Which batches of a program's DataLoaders are kept."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from chainrule.watch.loaders import KEPT_BATCHES, Loaders
from chainrule.watch.names import Names


def test_the_last_batch_of_each_loader_is_kept_and_of_many_loaders_those_of_the_last():
    loaders = Loaders(Names(), lambda *_, **__: None)
    with loaders.followed():
        for number in range(2 * KEPT_BATCHES):
            for _ in DataLoader(TensorDataset(torch.arange(3) + 10 * number)):
                pass
    assert [10 * number + 2 for number in range(KEPT_BATCHES, 2 * KEPT_BATCHES)] == [int(x) for (x,) in loaders.last]
