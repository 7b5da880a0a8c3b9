r"""The notebook's two regular expressions, matched in linear time.

The originals, with MULTILINE and DOTALL, are quadratic or worse on text a model can write
(repeated tags, long runs of spaces):

    <end_working_out>.*?<SOLUTION>(.+?)</SOLUTION>[\s]{0,}(?:EOS)?[\s]{0,}$
    <SOLUTION>.*?[\s]{0,}([-]?[\d\.\,]{1,})

What both search for is determined without backtracking. Whatever matches after some pair of tags
also matches after the first such pair, so only the first counts; the lazy capture then ends at the
first closing tag with an admissible tail. `[\s]{0,}$` holds exactly when the spaces up to the next
line feed end at a line feed or at the end of the text.
"""

from __future__ import annotations

import re
from functools import lru_cache

from grpo_dist.rewards.batch import SOLUTION_END, SOLUTION_START, WORKING_END

_NUMBER = re.compile(r"-?[\d.,]+")


@lru_cache(maxsize=8)
def _closing(eos_token: str) -> re.Pattern[str]:
    """A closing tag followed by nothing but spaces and at most one EOS up to the end of a line."""
    end_of_line = r"[^\S\n]*+$"
    if not eos_token.strip():  # white space is part of the tail already
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
