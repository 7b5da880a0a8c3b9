"""The answers of several models to the same problems → the file that `grpo-dist compare` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from grpo_dist.evaluation.comparison import Answered, Problem, result, scores
from grpo_dist.evaluation.statistics import Bootstrap


def compare_all(
    problems: Sequence[Problem], answers: Mapping[str, Sequence[Answered]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """All models on the same problems, in the same order, each against the first; JSON-ready.

    `difference` holds paired differences, a model minus the first, in greedy accuracy and mean@k; `gained` and `lost`
    count problems whose greedy answer is right where the first's is wrong, and the other way round. The first model
    has none of them.
    """
    first = next(iter(answers.values()))
    return {
        "problems": len(problems),
        "k": first[0].samples,
        "confidence": bootstrap.confidence,
        "models": [
            {"name": name, **scores(own, bootstrap), **_against(first, own, bootstrap)} for name, own in answers.items()
        ],
        "per_problem": [
            {"index": i, **asdict(problem), "answers": {name: result(own[i]) for name, own in answers.items()}}
            for i, problem in enumerate(problems)
        ],
    }


def _against(first: Sequence[Answered], own: Sequence[Answered], bootstrap: Bootstrap) -> dict[str, Any]:
    if own is first:
        return {"difference": None, "gained": None, "lost": None}
    pairs = list(zip(first, own, strict=True))
    right = [o.greedy_correct - f.greedy_correct for f, o in pairs]
    sampled = [(o.samples_correct - f.samples_correct) / o.samples for f, o in pairs] if own[0].samples else None
    return {
        "difference": {
            "greedy_accuracy": asdict(bootstrap.mean(right)),
            "mean_at_k": asdict(bootstrap.mean(sampled)) if sampled else None,
        },
        "gained": right.count(1),
        "lost": right.count(-1),
    }
