"""Outliers by a measure that they cannot spoil: distance from the median in units of the median absolute deviation.

Source: B. Iglewicz and D. Hoaglin, How to detect and handle outliers (1993): |x − median| > 3.5 · 1.4826 · MAD. The factor
makes the MAD of a normal distribution its standard deviation; of normal numbers 5 in 10,000 are beyond 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BEYOND = 3.5
NORMAL = 1.4826


@dataclass(frozen=True)
class Spread:
    """Where numbers lie, and which are far off.

    scale     1.4826 · MAD: the standard deviation of the bulk
    above, below  share of the numbers beyond 3.5 scales, on each side
    farthest  distance of the farthest, in scales
    """

    median: float
    scale: float
    above: float
    below: float
    farthest: float

    @property
    def outliers(self) -> float:
        """Share of the numbers that are far off, on both sides."""
        return self.above + self.below


def spread(values: NDArray[np.float64]) -> Spread:
    """Median, scale and outliers; where more than half of the numbers are equal, from the others' distances."""
    median = float(np.median(values))
    away = np.abs(values - median)
    scale = NORMAL * float(np.median(away))
    if scale == 0:
        scale = NORMAL * float(np.median(away[away > 0]))
    with np.errstate(over="ignore"):  # nearly all numbers may be equal, and one be far beyond: inf scales off
        signed = (values - median) / scale
    return Spread(
        median,
        scale,
        float((signed > BEYOND).mean()),
        float((signed < -BEYOND).mean()),
        float(np.abs(signed).max()),
    )
