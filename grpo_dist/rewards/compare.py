r"""Whether an answer is correct, judged strictly.

Both texts are read as typed answers (`answers.parse`) and compared within their type (`answers.equal`): numbers
exactly, expressions by their value, containers member by member. Unevaluated arithmetic is not an answer where a number
is expected, or copying the question (`17*2`) would be correct. Sums, products, integrals and limits are left to
math-verify.
"""

from __future__ import annotations

import re
from functools import lru_cache

from grpo_dist.rewards.answers.equal import equal
from grpo_dist.rewards.answers.parse import readings
from grpo_dist.rewards.answers.tokens import squeezed
from grpo_dist.rewards.answers.types import Opaque
from grpo_dist.rewards.latex import balanced, clean
from grpo_dist.rewards.symbolic import TIMEOUT_S, verdict

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
