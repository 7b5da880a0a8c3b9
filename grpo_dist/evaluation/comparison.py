"""The answers of two models to the same problems → `comparison.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from grpo_dist.evaluation.statistics import Paired

EXAMPLES = 10


@dataclass(frozen=True)
class Problem:
    """A held-out problem as it is shown: the question, and the true answer."""

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


def compare(
    problems: Sequence[Problem], base: Sequence[Answered], trained: Sequence[Answered], paired: Paired
) -> dict[str, Any]:
    """Both models on the same problems, in the same order; JSON-ready.

    `gained` and `lost` count rows whose greedy answer turned right or wrong; `differences` holds the paired
    difference of every statistic, trained minus base, and `difference` that of greedy accuracy. `problems` counts
    rows, `different_problems` those that ask something else; intervals count the latter.
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
    """mean_at_k is the share of samples that are right, pass_at_k the share of problems with a right one among k."""
    return {
        **{name: asdict(paired.mean(*values)) if values else None for name, values in _values(answers).items()},
        "mean_completion_length": fmean(a.greedy_tokens for a in answers),
        "clipped_ratio": fmean(a.greedy_clipped for a in answers),
    }


def differences(first: Sequence[Answered], second: Sequence[Answered], paired: Paired) -> dict[str, Any]:
    """The paired difference of every statistic, second minus first; None for what was not sampled."""
    before, after = _values(first), _values(second)
    return {name: asdict(paired.difference(before[name][0], *after[name])) if after[name] else None for name in before}


def _values(answers: Sequence[Answered]) -> dict[str, tuple[list[float], int] | None]:
    """Statistic → a value for each row, and how many outcomes it is the mean of; None for what was not sampled."""
    k = answers[0].samples
    return {
        "greedy_accuracy": ([float(a.greedy_correct) for a in answers], 1),
        "mean_at_k": ([a.samples_correct / a.samples for a in answers], k) if k else None,
        "pass_at_k": ([float(a.samples_correct > 0) for a in answers], 1) if k else None,
    }


def result(answer: Answered) -> dict[str, Any]:
    return {
        "greedy_correct": answer.greedy_correct,
        "samples_correct": answer.samples_correct,
        "greedy": answer.greedy,
    }


def _example(problem: Problem, base: Answered, trained: Answered) -> dict[str, str]:
    return {**asdict(problem), "base": base.greedy, "trained": trained.greedy}
