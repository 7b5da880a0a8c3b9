"""Which column of the data holds reference answers, and how its values appear in a completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_dist.rewards.load import LoadedReward

ANSWER = "answer"
NAMED = (
    *(ANSWER, "ground_truth", "solution", "target", "label", "final_answer", "reference", "expected"),
    *("answers", "ground_truths", "solutions", "targets", "labels", "references"),
)
"""Usual names of the column with reference answers."""
CERTAIN = (ANSWER, "ground_truth")
"""The names whose values are answers as a completion gives them. A target to reach, or a worked solution, may not be
one."""


def answer_column(rewards: Sequence[LoadedReward], there: Sequence[str]) -> str:
    """The column that the functions use as reference answers; `answer` if unknown."""
    asked = [column for reward in rewards for column in reward.columns if column in there]
    named = [name for name in NAMED if name in asked]
    if named:
        return named[0]
    return asked[0] if asked and ANSWER not in there else ANSWER


def written(value: Any) -> str:
    """A value as text: of several right answers the first, of a record its answer."""
    if isinstance(value, Mapping):
        return written(next((value[name] for name in NAMED if name in value), str(value)))
    if isinstance(value, (list, tuple)):
        return written(value[0]) if value else ""
    return str(value)


def other_values(values: Sequence[Any], others: Sequence[str]) -> list[Any]:
    """A wrong value for each value, of the same type: text of `others`, else the value of another problem."""
    return [
        other if isinstance(value, str) else _next(values, place)
        for place, (value, other) in enumerate(zip(values, others, strict=True))
    ]


def _next(values: Sequence[Any], place: int) -> Any:
    later = (*values[place + 1 :], *values[:place])
    return next((other for other in later if other != values[place]), values[place])
