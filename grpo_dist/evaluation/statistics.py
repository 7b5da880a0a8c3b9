"""Means over problems and their paired differences, with confidence intervals that hold for few problems too.

Nothing is resampled: 0 of 4 right has an interval from 0 to 49 %, where a bootstrap gives one without width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate and the confidence interval around it."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The problems that all models were asked, and the level of the intervals.

    Problems are the unit: rows that ask the same one are not independent of each other, nor are samples of one problem.
    """

    confidence: float
    keys: tuple[Hashable, ...]
    """For each row which problem it asks; rows with equal keys count as one in every interval."""

    @cached_property
    def places(self) -> np.ndarray:
        """For each row the number of its problem, in the order in which problems first occur."""
        first = {key: place for place, key in enumerate(dict.fromkeys(self.keys))}
        return np.array([first[key] for key in self.keys])

    @property
    def problems(self) -> int:
        """How many different ones there are."""
        return int(self.places.max()) + 1

    def mean(self, values: Sequence[float], samples: int = 1) -> Interval:
        """Mean over the rows of values from 0 to 1, each itself the mean of `samples` outcomes that are 0 or 1.

        Wilson's score interval (Wilson 1927, JASA 22:209) on an effective number of problems, which for single
        outcomes is their number. For means of several it follows from the spread between problems, as for clustered
        samples (Korn and Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, J. Surv. Stat. Methodol.
        3:484), and lies between the number of problems and that of all samples.
        """
        mean = float(np.mean(values))
        return Interval(mean, *_wilson(mean, self._effective(values, samples), self._z))

    def difference(self, first: Sequence[float], second: Sequence[float], samples: int = 1) -> Interval:
        """Mean of `second` less mean of `first`, row by row on the same problems.

        Newcombe's method 10 for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635), which squares and
        adds the distances to both single intervals, less what the correlation saves; for means of several outcomes the
        same with their own intervals (Zou and Donner 2008, Statistics in Medicine 27:1693). Where the single intervals
        do not touch, it never includes zero.
        """
        one, other = self.mean(first, samples), self.mean(second, samples)
        gap, r = float(np.mean(np.subtract(second, first))), self._correlation(first, second, samples)
        below = _joined(other.estimate - other.low, one.high - one.estimate, r)
        above = _joined(other.high - other.estimate, one.estimate - one.low, r)
        return Interval(gap, max(-1.0, gap - below), min(1.0, gap + above))

    @property
    def _z(self) -> float:
        return NormalDist().inv_cdf((1 + self.confidence) / 2)

    @cached_property
    def _weights(self) -> np.ndarray:
        """The share of the rows that ask each problem."""
        return np.bincount(self.places) / len(self.places)

    @property
    def _independent(self) -> float:
        """The number of problems that weigh alike and say as much as these (Kish 1965, section 11.7)."""
        return float(1 / np.sum(self._weights**2))

    def _per_problem(self, values: Sequence[float]) -> np.ndarray:
        sums = np.bincount(self.places, weights=np.asarray(values, dtype=float))
        return sums / np.bincount(self.places)

    def _effective(self, values: Sequence[float], samples: int) -> float:
        count, each = self._independent, self._per_problem(values)
        mean, freedom = float(np.mean(values)), self.problems - 1
        spread = float(np.sum((self._weights * (each - mean)) ** 2))
        if freedom == 0 or spread == 0:
            return count
        variance = spread * self.problems / freedom
        found = mean * (1 - mean) / variance * (self._z / _student(self._z, freedom)) ** 2
        return min(max(found, count), count * samples)

    def _correlation(self, first: Sequence[float], second: Sequence[float], samples: int) -> float:
        """Between problems, a positive one less by half a step: Newcombe's correction for continuity."""
        one, other = (self._per_problem(values) for values in (first, second))
        one, other = one - self._weights @ one, other - self._weights @ other
        size = sqrt(float(self._weights @ one**2) * float(self._weights @ other**2))
        if size == 0:
            return 0.0
        together = float(self._weights @ (one * other))
        if together > 0:
            together = max(0.0, together - 1 / (2 * self._independent * samples))
        return together / size


def _wilson(mean: float, count: float, z: float) -> tuple[float, float]:
    centre, half = mean + z * z / (2 * count), z * sqrt(mean * (1 - mean) / count + (z / (2 * count)) ** 2)
    low, high = ((centre + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return min(max(0.0, low), mean), max(min(1.0, high), mean)


def _joined(one: float, other: float, r: float) -> float:
    return sqrt(max(0.0, one**2 - 2 * r * one * other + other**2))


def _student(z: float, freedom: int) -> float:
    """Student's quantile from the normal one (Abramowitz and Stegun 26.7.5); for 3 degrees of freedom within 1 %."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
