"""Planted faults that a short training shows: what cannot be learnt by heart, rates that do not train."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

import chainrule as cr
from faults.case import Case
from faults.small_setups import Head, batches, classifier, loss


def adam(model, rate=1e-2):
    return torch.optim.Adam(model.parameters(), lr=rate)


def softmax_twice(broken):
    model = classifier()

    def own_loss(model, batch):
        inputs, targets = batch
        logits = model(inputs)
        return F.cross_entropy(logits.softmax(-1) if broken else logits, targets)

    return cr.Setup(model, own_loss, batches(), adam(model))


class Rectified(nn.Module):
    """A regression whose output cannot be negative, as if it were a probability."""

    def __init__(self, broken):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 1))
        self.broken = broken

    def forward(self, x_BD):
        return self.body(x_BD).relu() if self.broken else self.body(x_BD)


def output_cut_off(broken):
    torch.manual_seed(0)
    model = Rectified(broken)
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(16, 8, generator=generator), torch.randn(16, 1, generator=generator))]
    return cr.Setup(model, lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), data, adam(model))


def mean_of_the_batch(broken):
    """Inputs are averaged over the batch by a wrong axis: every example looks alike."""
    torch.manual_seed(0)

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(16, 16), Head(16, 4)

        def forward(self, tokens_BT):
            x_BTD = self.embed(tokens_BT)
            pooled = x_BTD.mean(0, keepdim=True).mean(1).expand(len(tokens_BT), -1) if broken else x_BTD.mean(1)
            return self.head(pooled)

    model = Pooled()
    tokens = torch.randint(16, (8, 5), generator=torch.Generator().manual_seed(1))
    targets = torch.arange(8) % 4
    return cr.Setup(
        model, lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), [(tokens, targets)], adam(model)
    )


def rate(rate, sane, kind, broken):
    model = classifier()
    return cr.Setup(model, loss, batches(), kind(model.parameters(), lr=rate if broken else sane))


def overfit(id, source, fault, build, where):
    return Case(id, source, fault, "overfit-one-batch", build, where)


def range_(id, source, fault, build, where):
    return Case(id, source, fault, "learning-rate-range", build, where)


CASES = [
    overfit("L08s", "lightning-bolts#654", "softmax before the cross entropy", softmax_twice, "Classifier"),
    overfit("S04s", "SO 44066044", "a rectifier at the output", output_cut_off, "Rectified"),
    overfit("S37s", "SO 38447935", "a mean over the wrong axis", mean_of_the_batch, "Pooled"),
    overfit("S13s", "SO 59106542", "a rate too low", partial(rate, 1e-6, 0.3, torch.optim.SGD), "SGD"),
    range_("S12s", "SO 48934338", "SGD at 100", partial(rate, 100.0, 0.1, torch.optim.SGD), "SGD"),
    range_("S12t", "SO 37624102", "Adam at 5", partial(rate, 5.0, 1e-3, torch.optim.Adam), "Adam"),
    range_("S13t", "SO 63497958", "SGD at 1e-6", partial(rate, 1e-6, 0.1, torch.optim.SGD), "SGD"),
    range_("S13u", "SO 63372983", "Adam at 1e-8", partial(rate, 1e-8, 1e-3, torch.optim.Adam), "Adam"),
]
