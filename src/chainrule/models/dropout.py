"""Dropout that is absent where nothing is dropped.

Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting"; scaled by 1 / (1 - p) in
training, so that nothing changes in evaluation.
"""

from __future__ import annotations

from torch import nn


def dropout_layer(probability: float) -> nn.Module:
    """Dropout, or nothing at all: without dropout there is no random node in the graph."""
    return nn.Dropout(probability) if probability > 0 else nn.Identity()
