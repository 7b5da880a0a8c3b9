"""The answers of two models to the same problems → `comparison.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from grpo_dist.evaluation.statistics import Bootstrap

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
    problems: Sequence[Problem], base: Sequence[Answered], trained: Sequence[Answered], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Both models on the same problems, in the same order; JSON-ready.

    `gained` and `lost` count problems whose greedy answer turned right or wrong; `difference` is the paired
    difference of greedy accuracy, trained minus base.
    """
    pairs = list(zip(problems, base, trained, strict=True))
    gained = [pair for pair in pairs if pair[2].greedy_correct and not pair[1].greedy_correct]
    lost = [pair for pair in pairs if pair[1].greedy_correct and not pair[2].greedy_correct]
    return {
        "problems": len(problems),
        "k": base[0].samples,
        "confidence": bootstrap.confidence,
        "base": scores(base, bootstrap),
        "trained": scores(trained, bootstrap),
        "difference": asdict(bootstrap.mean([t.greedy_correct - b.greedy_correct for _, b, t in pairs])),
        "gained": len(gained),
        "lost": len(lost),
        "flipped": {
            "gained": [_example(*p) for p in gained[:EXAMPLES]],
            "lost": [_example(*p) for p in lost[:EXAMPLES]],
        },
        "per_problem": [
            {"index": i, **asdict(problem), "base": result(b), "trained": result(t)}
            for i, (problem, b, t) in enumerate(pairs)
        ],
    }


def scores(answers: Sequence[Answered], bootstrap: Bootstrap) -> dict[str, Any]:
    """mean_at_k is the share of samples that are right, pass_at_k the share of problems with a right one among k."""
    sampled = answers[0].samples > 0
    return {
        "greedy_accuracy": asdict(bootstrap.mean([a.greedy_correct for a in answers])),
        "mean_at_k": asdict(bootstrap.mean([a.samples_correct / a.samples for a in answers])) if sampled else None,
        "pass_at_k": asdict(bootstrap.mean([a.samples_correct > 0 for a in answers])) if sampled else None,
        "mean_completion_length": fmean(a.greedy_tokens for a in answers),
        "clipped_ratio": fmean(a.greedy_clipped for a in answers),
    }


def result(answer: Answered) -> dict[str, Any]:
    return {
        "greedy_correct": answer.greedy_correct,
        "samples_correct": answer.samples_correct,
        "greedy": answer.greedy,
    }


def _example(problem: Problem, base: Answered, trained: Answered) -> dict[str, str]:
    return {**asdict(problem), "base": base.greedy, "trained": trained.greedy}
