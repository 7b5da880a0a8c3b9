"""Rewards without the notebook's holes, and the plain judge of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpo_dist.rewards.batch import (
    EOS_TOKEN,
    SOLUTION_END,
    SOLUTION_START,
    WORKING_END,
    WORKING_START,
    texts,
    texts_with_truths,
)
from grpo_dist.rewards.compare import same_answer
from grpo_dist.rewards.extract import final_answer, only_solution
from grpo_dist.rewards.symbolic import TIMEOUT_S, budget


def strict_format(
    prompts: Sequence[Any], completions: Sequence[Any], *, eos_token: str = EOS_TOKEN, **columns: Any
) -> list[float | None]:
    """3.0 when the whole completion is working-out, its closing tag, and a solution in tags; else 0.0.

    Each tag occurs once, neither part is blank, and only white space and one EOS follow. The opening
    working-out tag is part of the prompt; a completion may start with it when the prompt has none.
    """
    return [3.0 if _is_well_formed(text, eos_token) else 0.0 for text in texts(completions)]


def strict_answer(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    answer: Sequence[Any],
    symbolic_timeout_s: float = TIMEOUT_S,
    **columns: Any,
) -> list[float | None]:
    """5.0 for the right solution, −2.0 for a wrong one, −2.5 for none: an attempt never costs more than silence.

    The solution is what stands in the solution tags, each of which occurs once: two solutions are none. What follows
    it is `strict_format`'s business.
    """
    with budget():
        return [
            _score(only_solution(text), truth, symbolic_timeout_s)
            for text, truth in texts_with_truths(completions, answer)
        ]


def accuracy(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    answer: Sequence[Any],
    symbolic_timeout_s: float = TIMEOUT_S,
    **columns: Any,
) -> list[float | None]:
    """1.0 when the final answer is right, however it is marked (`extract.final_answer`); else 0.0."""
    with budget():
        return [
            float(same_answer(final_answer(text) or "", truth, timeout_s=symbolic_timeout_s))
            for text, truth in texts_with_truths(completions, answer)
        ]


def _is_well_formed(text: str, eos_token: str) -> bool:
    body = text.strip().removeprefix(WORKING_START)
    if WORKING_START in body or any(body.count(tag) != 1 for tag in (WORKING_END, SOLUTION_START, SOLUTION_END)):
        return False
    working, _, rest = body.partition(WORKING_END)
    between, _, rest = rest.partition(SOLUTION_START)
    solution, closing, tail = rest.partition(SOLUTION_END)
    filled = working.strip() and solution.strip() and not between.strip()
    return bool(closing and filled and tail.strip() in ("", eos_token.strip()))


def _score(guess: str | None, truth: str, timeout_s: float) -> float:
    if guess is None:
        return -2.5
    return 5.0 if same_answer(guess, truth, timeout_s=timeout_s) else -2.0
