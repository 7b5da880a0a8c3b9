"""Means over problems, with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate and the confidence interval around it."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over problems (Efron and Tibshirani 1993, chapter 13).

    Problems are the unit that is resampled: samples of one problem are not independent of each other.
    """

    resamples: int
    confidence: float
    seed: int

    def mean(self, values: Sequence[float]) -> Interval:
        """Mean of one value per problem. For a paired difference give the differences."""
        data = np.asarray(values, dtype=float)
        draws = np.random.default_rng(self.seed).integers(0, len(data), size=(self.resamples, len(data)))
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(data[draws].mean(axis=1), [tail, 1 - tail])
        return Interval(float(data.mean()), float(low), float(high))
