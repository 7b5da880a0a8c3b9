"""The answers of several models to the same problems → accuracies and paired differences with confidence intervals.

Base and trained model give `comparison.json`, and `grpo-dist compare` writes a similar file for any models; its request
to the process that generates the answers is defined here too.

Intervals are valid for few problems, and nothing is resampled: 0 of 4 correct has an interval from 0 to 49 %, where a
bootstrap interval has no width.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import sqrt
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from grpo_dist.evaluation import Interval
from grpo_dist.run.checkpoints import ModelSource


@dataclass(frozen=True)
class Paired:
    """The problems that all models answered, and the level of the intervals.

    Problems are the unit: rows with the same problem are not independent, nor are samples of one problem.
    """

    confidence: float
    keys: tuple[Hashable, ...]
    """The problem key of each row; rows with equal keys count as one in every interval."""

    @cached_property
    def places(self) -> np.ndarray:
        """For each row the number of its problem, in the order in which problems first occur."""
        first = {key: place for place, key in enumerate(dict.fromkeys(self.keys))}
        return np.array([first[key] for key in self.keys])

    @property
    def problems(self) -> int:
        """Number of different problems."""
        return int(self.places.max()) + 1

    def mean(self, values: Sequence[float], samples: int = 1) -> Interval:
        """Mean over the rows of values from 0 to 1, each itself the mean of `samples` outcomes that are 0 or 1.

        Wilson's score interval (Wilson 1927, JASA 22:209) on an effective number of problems, which for single
        outcomes is their number. For means of several it follows from the spread between problems, as for clustered
        samples (Korn and Graubard 1998, Survey Methodology 24:193; Dean and Pagano 2015, J. Surv. Stat. Methodol.
        3:484), and is between the number of problems and that of all samples.
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
        """The number of equally weighted problems that carry as much information (Kish 1965, section 11.7)."""
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
        """Correlation of the two over the problems; a positive one is reduced by Newcombe's continuity correction."""
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


EXAMPLES = 10


@dataclass(frozen=True)
class ComparedProblem:
    """A held-out problem for display: the question and the reference answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Answered:
    """What one model answered to one problem."""

    greedy: str
    greedy_correct: bool
    greedy_tokens: int
    greedy_clipped: bool
    samples_correct: int
    samples: int
    greedy_score: float | None = None
    """What the scorer gave: partial credit counts here. None, as below, if it is not a number from 0 to 1."""
    samples_score: float | None = None
    """Mean over the samples."""


def compare(
    problems: Sequence[ComparedProblem], base: Sequence[Answered], trained: Sequence[Answered], paired: Paired
) -> dict[str, Any]:
    """Both models on the same problems, in the same order; JSON-ready.

    `gained` and `lost` count rows whose greedy answer became correct or incorrect; `differences` holds the paired
    difference of every statistic, trained minus base, and `difference` that of greedy accuracy. `problems` counts rows,
    `different_problems` the distinct ones, which intervals count.
    """
    pairs = list(zip(problems, base, trained, strict=True))
    gained = [pair for pair in pairs if pair[2].greedy_correct and not pair[1].greedy_correct]
    lost = [pair for pair in pairs if pair[1].greedy_correct and not pair[2].greedy_correct]
    moved = differences(base, trained, paired)
    return {
        "problems": len(problems),
        "different_problems": paired.problems,
        "k": base[0].samples,
        "confidence": paired.confidence,
        "base": scores(base, paired),
        "trained": scores(trained, paired),
        "difference": moved["greedy_accuracy"],
        "differences": moved,
        "gained": len(gained),
        "lost": len(lost),
        "flipped": {
            "gained": [_example(*p) for p in gained[:EXAMPLES]],
            "lost": [_example(*p) for p in lost[:EXAMPLES]],
        },
        "per_problem": [
            {"index": i, "problem": int(place), **asdict(problem), "base": result(b), "trained": result(t)}
            for i, (place, (problem, b, t)) in enumerate(zip(paired.places, pairs, strict=True))
        ],
    }


def scores(answers: Sequence[Answered], paired: Paired) -> dict[str, Any]:
    """mean_at_k is the share of correct samples, pass_at_k the share of problems with a correct one among k;
    greedy_score and mean_score are means of what the scorer gave, None if it gives other than numbers from 0 to 1."""
    return {
        **{name: asdict(paired.mean(*values)) if values else None for name, values in _values(answers).items()},
        "mean_completion_length": fmean(a.greedy_tokens for a in answers),
        "clipped_ratio": fmean(a.greedy_clipped for a in answers),
    }


def differences(first: Sequence[Answered], second: Sequence[Answered], paired: Paired) -> dict[str, Any]:
    """The paired difference of every statistic, second minus first; None for statistics that one of them lacks."""
    before, after = _values(first), _values(second)
    return {
        name: asdict(paired.difference(before[name][0], *after[name])) if before[name] and after[name] else None
        for name in before
    }


def _values(answers: Sequence[Answered]) -> dict[str, tuple[list[float], int] | None]:
    """Statistic → a value for each row, and the number of outcomes it averages; None for statistics without samples or
    scores."""
    k = answers[0].samples
    greedy, sampled = [a.greedy_score for a in answers], [a.samples_score for a in answers]
    return {
        "greedy_accuracy": ([float(a.greedy_correct) for a in answers], 1),
        "mean_at_k": ([a.samples_correct / a.samples for a in answers], k) if k else None,
        "pass_at_k": ([float(a.samples_correct > 0) for a in answers], 1) if k else None,
        "greedy_score": (greedy, 1) if None not in greedy else None,
        "mean_score": (sampled, k) if k and None not in sampled else None,
    }


def result(answer: Answered) -> dict[str, Any]:
    return {
        "greedy_correct": answer.greedy_correct,
        "greedy_score": answer.greedy_score,
        "samples_correct": answer.samples_correct,
        "greedy": answer.greedy,
    }


def _example(problem: ComparedProblem, base: Answered, trained: Answered) -> dict[str, str]:
    return {**asdict(problem), "base": base.greedy, "trained": trained.greedy}


def compare_all(
    problems: Sequence[ComparedProblem], answers: Mapping[str, Sequence[Answered]], paired: Paired
) -> dict[str, Any]:
    """All models on the same problems, in the same order, each against the first; JSON-ready.

    `difference` holds the paired difference of every statistic, a model minus the first; `gained` and `lost` count rows
    whose greedy answer is correct where the first model's is not, and vice versa. The first model has none of these
    keys. `problems` counts rows, `different_problems` the distinct ones, which intervals count.
    """
    first = next(iter(answers.values()))
    return {
        "problems": len(problems),
        "different_problems": paired.problems,
        "k": first[0].samples,
        "confidence": paired.confidence,
        "models": [
            {"name": name, **scores(own, paired), **_against(first, own, paired)} for name, own in answers.items()
        ],
        "per_problem": [
            {
                "index": i,
                "problem": int(place),
                **asdict(problem),
                "answers": {name: result(own[i]) for name, own in answers.items()},
            }
            for i, (place, problem) in enumerate(zip(paired.places, problems, strict=True))
        ],
    }


def _against(first: Sequence[Answered], own: Sequence[Answered], paired: Paired) -> dict[str, Any]:
    if own is first:
        return {"difference": None, "gained": None, "lost": None}
    right = [o.greedy_correct - f.greedy_correct for f, o in zip(first, own, strict=True)]
    return {
        "difference": differences(first, own, paired),
        "gained": right.count(1),
        "lost": right.count(-1),
    }


@dataclass(frozen=True)
class CompareRequest:
    """Models to compare, in order, and the run whose settings, judge and problems they are compared with."""

    run: str
    models: tuple[ModelSource, ...]
    overrides: tuple[str, ...]
    """Overrides `a.b=v` of the run's configuration; only under `data` and `evaluation`."""
    other_data: bool
    """Whether the problems are read again with the overrides; otherwise they are those the run held out."""
    result: str
    """The JSON file to write."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> CompareRequest:
        models = tuple(ModelSource(**model) for model in fields["models"])
        return cls(**{**fields, "models": models, "overrides": tuple(fields["overrides"])})
