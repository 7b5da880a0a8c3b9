r"""The built-in rewards: the recipe's four, their strict counterparts, the comparison's judge, and length penalties.

The `notebook` rewards compute exactly what the recipe's notebook does, including its faults: extra text on a new line
after the solution costs nothing, `1_0` counts as ten, and the first number of a longer solution is enough for
`check_numbers`. The set `strict` closes these holes.

The notebook's two regular expressions are matched here in linear time. The originals, with MULTILINE and DOTALL, are
quadratic or worse on text a model can write (repeated tags, long runs of spaces):

    <end_working_out>.*?<SOLUTION>(.+?)</SOLUTION>[\s]{0,}(?:EOS)?[\s]{0,}$
    <SOLUTION>.*?[\s]{0,}([-]?[\d\.\,]{1,})

What both search for is determined without backtracking. Whatever matches after some pair of tags also matches after the
first such pair, so only the first counts; the lazy capture then ends at the first closing tag with an admissible tail.
`[\s]{0,}$` matches exactly when the spaces up to the next line feed end at a line feed or at the end of the text.

`same_answer` judges strictly. Both texts are read as typed answers (`answers.parse`) and compared within their type
(`answers.equal`): numbers exactly, expressions by their value, containers member by member. Unevaluated arithmetic is
not an answer where a number is expected, or copying the question (`17*2`) would be correct. Sums, products, integrals
and limits are left to math-verify.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from grpo_dist.rewards.answers.equal import equal
from grpo_dist.rewards.answers.parse import readings
from grpo_dist.rewards.answers.tokens import squeezed
from grpo_dist.rewards.answers.types import Opaque
from grpo_dist.rewards.extract import final_answer, only_solution
from grpo_dist.rewards.latex import balanced, clean
from grpo_dist.rewards.preflight.forms import (
    EOS_TOKEN,
    SOLUTION_END,
    SOLUTION_START,
    WORKING_END,
    WORKING_START,
    texts,
    texts_with_truths,
)
from grpo_dist.rewards.symbolic import TIMEOUT_S, budget, verdict

MAX_CHARS = 4000
_LEFT_TO_MATH_VERIFY = re.compile(r"\\(?:int|sum|prod|lim)(?![A-Za-z])")


def same_answer(guess: str, truth: str, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether `guess` is the answer `truth`; blank text is no answer.

    `timeout_s` bounds the processor time of math-verify. Texts longer than `MAX_CHARS` are equal only if identical.
    RewardError when a required library is not installed.
    """
    if max(len(guess), len(truth)) > MAX_CHARS:
        return guess.strip() == truth.strip() != ""
    same = _same(guess, truth)
    if same is not None:
        return same
    try:
        return _by_math_verify(clean(guess), clean(truth), timeout_s)
    except _NoVerdict:
        return False


@lru_cache(maxsize=8192)
def _same(guess: str, truth: str) -> bool | None:
    """None if it is for math-verify to decide."""
    given, right = readings(guess), readings(truth)
    if not (given and right):
        return False
    if _text(guess) == _text(truth) or any(equal(one, other) for one in given for other in right):
        return True
    opaque = all(isinstance(one, Opaque) for one in (*given, *right))
    return None if opaque and _is_for_math_verify(clean(guess), clean(truth)) else False


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    return squeezed(clean(text))


def _is_for_math_verify(guess: str, truth: str) -> bool:
    """Whether math-verify's result can be trusted: both have the same letters, because it reads `R` as `r` and words as
    products."""
    both = (guess, truth)
    letters = [set(re.findall(r"[A-Za-z]+", text)) for text in both]
    return letters[0] == letters[1] and all(_LEFT_TO_MATH_VERIFY.search(text) and balanced(text) for text in both)


@lru_cache(maxsize=2048)
def _by_math_verify(guess: str, truth: str, timeout_s: float) -> bool:
    """math-verify's result, cached. Raises: _NoVerdict, so that an exhausted budget is not cached as a wrong answer."""
    found = verdict(guess, truth, timeout_s=timeout_s)
    if found is None:
        raise _NoVerdict
    return found


class _NoVerdict(Exception):
    """math-verify was not called, or gave no result."""


_NUMBER = re.compile(r"-?[\d.,]+")


@lru_cache(maxsize=8)
def _closing(eos_token: str) -> re.Pattern[str]:
    """A closing tag followed by nothing but spaces and at most one EOS up to the end of a line."""
    end_of_line = r"[^\S\n]*+$"
    if not eos_token.strip():  # white space is already part of the tail
        return re.compile(SOLUTION_END + end_of_line, re.MULTILINE)
    eos = rf"[^\S\n]*{re.escape(eos_token)}[^\S\n]*+$"
    return re.compile(f"{SOLUTION_END}(?:{end_of_line}|{eos})", re.MULTILINE)


def find_solution(text: str, eos_token: str) -> str | None:
    """Group 1 of the first expression, None without a match."""
    working_end = text.find(WORKING_END)
    if working_end < 0:
        return None
    start = text.find(SOLUTION_START, working_end + len(WORKING_END))
    if start < 0:
        return None
    start += len(SOLUTION_START)
    closing = _closing(eos_token).search(text, start + 1)
    return text[start : closing.start()] if closing else None


def find_number(text: str) -> str | None:
    """Group 1 of the second expression, None without a match."""
    start = text.find(SOLUTION_START)
    number = _NUMBER.search(text, start + len(SOLUTION_START)) if start >= 0 else None
    return number.group() if number else None


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
    """The solution compared with the reference answer: from 5.0 (identical) to −4.5 (not a number); −2.0 without a
    solution."""
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


def strict_format(
    prompts: Sequence[Any], completions: Sequence[Any], *, eos_token: str = EOS_TOKEN, **columns: Any
) -> list[float | None]:
    """3.0 when the whole completion consists of reasoning, its closing tag, and a solution in tags; else 0.0.

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

    The solution is the text in the solution tags, each of which must occur once: two solutions count as none. What
    follows it is checked by `strict_format`.
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
    """1.0 when the final answer is correct, however it is marked (`extract.final_answer`); else 0.0."""
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


def soft_overlong_punishment(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    completion_ids: Sequence[Sequence[int]],
    max_completion_length: int,
    soft_punish_cache: int,
    **columns: Any,
) -> list[float | None]:
    """Soft overlong punishment, DAPO eq. 13 (arXiv 2503.14476): 0.0, falling to −1.0 over the last tokens.

    `max_completion_length` is L_max, `soft_punish_cache` is L_cache, both in tokens.
    """
    return [_punishment(len(ids), max_completion_length, soft_punish_cache) for ids in completion_ids]


def _punishment(length: int, longest: int, cache: int) -> float:
    free = longest - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= longest else -1.0
