r"""Whether an answer is right, strictly.

1. A right answer that is a number needs a number: compared exactly, as `quantity` describes.
   Arithmetic left to do is not an answer, or copying the question (`17*2`) would be one.
2. Otherwise equal text, in the form of `latex.plain` and without white space, is equal.
3. Otherwise math-verify decides. Decimals must agree with exact values to 12 places: 1.414 is not `\sqrt{2}`.

A name in front (`x = 34`) may be left out by either side.
"""

from __future__ import annotations

import re

from grpo_dist.rewards.latex import balanced, plain
from grpo_dist.rewards.quantity import parse_quantity, same_quantity
from grpo_dist.rewards.symbolic import TIMEOUT_S, symbolically_equal

MAX_CHARS = 4000

_ASSIGNMENT = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([a-z]\))? ?= ?([^=]+)")
_MATHEMATICAL = re.compile(r"[0-9\\^_+*/=<>()\[\]{}|!-]")
_GAP_IN_NUMBER = re.compile(r"[0-9] +[0-9]")  # math-verify adds both: 1 234 would be 235


def same_answer(guess: str, truth: str, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether `guess` is the answer `truth`; blank text is no answer. `timeout_s` bounds the symbolic comparison.

    Texts longer than `MAX_CHARS` are only equal when they are the same. RewardError when only math-verify
    could tell and it is not installed.
    """
    if max(len(guess), len(truth)) > MAX_CHARS:
        return guess.strip() == truth.strip() != ""
    guess, truth = _without_name(plain(guess), plain(truth))
    if not (guess and truth):
        return False
    right, given = parse_quantity(truth), parse_quantity(guess)
    if right is not None:
        return given is not None and same_quantity(given, right)
    if guess.replace(" ", "") == truth.replace(" ", "") and given is None:
        return True
    return _comparable(guess, truth) and symbolically_equal(guess, truth, timeout_s=timeout_s)


def _without_name(guess: str, truth: str) -> tuple[str, str]:
    """Both without `x =`, when exactly one of them has an equals sign."""
    if ("=" in guess) == ("=" in truth):
        return guess, truth
    return tuple(match[1].strip() if (match := _ASSIGNMENT.fullmatch(text)) else text for text in (guess, truth))


def _comparable(guess: str, truth: str) -> bool:
    """Whether math-verify's word can be trusted: it reads words as products and takes the end of `34=35`."""
    both = (guess, truth)
    return (
        any(_MATHEMATICAL.search(text) for text in both)
        and all(balanced(text) and "%" not in text and not _GAP_IN_NUMBER.search(text) for text in both)
        and ("=" in guess) == ("=" in truth)
    )
