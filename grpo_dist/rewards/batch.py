"""The arguments TRL passes to a reward function, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from grpo_dist.errors import RewardError

WORKING_START = "<start_working_out>"
WORKING_END = "<end_working_out>"
SOLUTION_START = "<SOLUTION>"
SOLUTION_END = "</SOLUTION>"
EOS_TOKEN = "<|endoftext|>"


def completion_text(completion: str | Sequence[dict[str, Any]]) -> str:
    """The text the model wrote: the completion itself, or the content of its first message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


def texts(completions: Sequence[Any]) -> list[str]:
    """`completion_text` of each."""
    return [completion_text(completion) for completion in completions]


def texts_with_truths(completions: Sequence[Any], answer: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Pairs (completion, right answer); numbers in the `answer` column become text by `str`."""
    for text, truth in zip(texts(completions), answer, strict=True):
        if truth is None:
            raise RewardError(
                "a problem has no right answer: its `answer` is null",
                hint="drop such rows from the data set, or point data.columns at the column that has the answers",
            )
        yield text, str(truth)
