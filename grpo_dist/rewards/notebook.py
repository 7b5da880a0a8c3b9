"""The recipe's four rewards, exactly as its notebook computes them.

Faithful to the point of their faults: junk on a new line after the solution costs nothing,
`1_0` counts as ten, and the first number of a longer solution is enough for `check_numbers`.
The set `strict` closes these holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpo_dist.rewards.batch import EOS_TOKEN, SOLUTION_END, SOLUTION_START, WORKING_END, texts, texts_with_truths
from grpo_dist.rewards.notebook_match import find_number, find_solution


def match_format_exactly(
    prompts: Sequence[Any], completions: Sequence[Any], *, eos_token: str = EOS_TOKEN, **columns: Any
) -> list[float | None]:
    """3.0 when the tags are in order and the closing one ends a line, else 0.0."""
    return [0.0 if find_solution(text, eos_token) is None else 3.0 for text in texts(completions)]


def match_format_approximately(
    prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
) -> list[float | None]:
    """For each of three tags 0.5 when it occurs exactly once, else −1.0: between −3.0 and 1.5."""
    tags = (WORKING_END, SOLUTION_START, SOLUTION_END)
    return [sum(0.5 if text.count(tag) == 1 else -1.0 for tag in tags) for text in texts(completions)]


def check_answer(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    answer: Sequence[Any],
    eos_token: str = EOS_TOKEN,
    **columns: Any,
) -> list[float | None]:
    """The solution against the right answer: from 5.0 (identical) to −4.5 (not a number); −2.0 without a solution."""
    return [
        _score_solution(find_solution(text, eos_token), truth) for text, truth in texts_with_truths(completions, answer)
    ]


def check_numbers(
    prompts: Sequence[Any], completions: Sequence[Any], *, answer: Sequence[Any], **columns: Any
) -> list[float | None]:
    """The first number after the solution tag: 3.5 equal, −1.5 not, 0.0 unreadable, −2.5 no number."""
    return [_score_number(find_number(text), truth) for text, truth in texts_with_truths(completions, answer)]


def _score_solution(guess: str | None, truth: str) -> float:
    if guess is None:
        return -2.0
    if guess == truth:
        return 5.0
    if guess.strip() == truth.strip():
        return 3.5
    try:
        ratio = float(guess) / float(truth)
    except (ValueError, ZeroDivisionError):
        return -4.5
    if 0.9 <= ratio <= 1.1:
        return 2.0
    return 1.5 if 0.8 <= ratio <= 1.2 else -2.5


def _score_number(guess: str | None, truth: str) -> float:
    if guess is None:
        return -2.5
    try:
        return 3.5 if float(guess.replace(",", "")) == float(truth) else -1.5
    except ValueError:
        return 0.0
