"""How good predictions of numbers are, beside always predicting the training mean.

    R2 = 1 - Σ (y - p)² / Σ (y - ȳ)²      MAE = mean |y - p|      RMSE = sqrt(mean (y - p)²)

R2 takes ȳ of the measured rows; it is 1 for perfect predictions, 0 for their mean, and has no lower bound.
"""

from __future__ import annotations

import math

import numpy as np

from chainrule.data.tables.column import Floats


def regression_scores(y_R: Floats, predicted_R: Floats) -> dict[str, float]:
    """R2, MAE and RMSE; R2 is nan where all targets are equal."""
    error_R = y_R - predicted_R
    spread = float(((y_R - y_R.mean()) ** 2).sum())
    return {
        "R2": 1 - float((error_R**2).sum()) / spread if spread else math.nan,
        "MAE": float(np.abs(error_R).mean()),
        "RMSE": math.sqrt(float((error_R**2).mean())),
    }


def mean_scores(y_R: Floats, training_mean: float) -> dict[str, float]:
    """The scores of always predicting the mean of the training rows."""
    return regression_scores(y_R, np.full(len(y_R), training_mean))
