"""The answers of several models to the same problems → the file that `grpo-dist compare` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from grpo_dist.evaluation.comparison import Answered, Problem, differences, result, scores
from grpo_dist.evaluation.statistics import Paired


def compare_all(
    problems: Sequence[Problem], answers: Mapping[str, Sequence[Answered]], paired: Paired
) -> dict[str, Any]:
    """All models on the same problems, in the same order, each against the first; JSON-ready.

    `difference` holds the paired difference of every statistic, a model minus the first; `gained` and `lost` count
    rows whose greedy answer is right where the first's is wrong, and the other way round. The first model has none of
    them. `problems` counts rows, `different_problems` those that ask something else; intervals count the latter.
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
