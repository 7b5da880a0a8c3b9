r"""Where the final answer stands in a text: in solution tags, in `\boxed{}`, after `####`, or as the last number.

Every function takes linear time on any text and returns None when there is no such answer.
"""

from __future__ import annotations

import re

from grpo_dist.rewards.batch import SOLUTION_END, SOLUTION_START

_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(
    r"""(?: (?<![0-9A-Za-z)\]}]) [-+\u2212] )?      # in 10-3 the minus is no sign
        (?: [0-9]++ (?:,[0-9]++)*+ (?:\.[0-9]++)?+ | \.[0-9]++ )
        (?: /[0-9]++ | [eE][-+]?[0-9]++ )?+ %?""",
    re.VERBOSE,
)


def only_solution(text: str) -> str | None:
    """Inside the solution tags, when both occur once and in order; not blank."""
    if text.count(SOLUTION_START) != 1 or text.count(SOLUTION_END) != 1:
        return None
    solution, closing, _ = text.partition(SOLUTION_START)[2].partition(SOLUTION_END)
    return solution if closing and solution.strip() else None


def last_solution(text: str) -> str | None:
    """Inside the last pair of solution tags with no tag between them."""
    end = text.rfind(SOLUTION_END)
    start = text.rfind(SOLUTION_START, 0, max(end, 0))
    if start < 0:
        return None
    start += len(SOLUTION_START)
    return text[start : text.find(SOLUTION_END, start)]


def last_boxed(text: str) -> str | None:
    r"""Inside the last `\boxed{…}` whose braces balance; `\{` and `\}` are not braces."""
    open_boxes: list[int | None] = []  # start of the content; None for a plain brace
    best = None
    for token in _BRACES.finditer(text):
        if token.group().startswith(r"\boxed"):
            open_boxes.append(token.end())
        elif token.group() == "{":
            open_boxes.append(None)
        elif token.group() == "}" and open_boxes:
            start = open_boxes.pop()
            if start is not None and (best is None or start > best[0]):
                best = (start, token.start())
    return text[slice(*best)] if best else None


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last `####` (GSM8K's form); not blank."""
    _, hashes, rest = text.rpartition("####")
    return (rest.strip().splitlines() or [None])[0] if hashes else None


def last_number(text: str) -> str | None:
    """The last number in the text, with its sign, decimals, denominator, exponent or percent sign."""
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def final_answer(text: str) -> str | None:
    r"""The answer a text commits to: `last_solution`, else `last_boxed`, else `after_hashes`, else `last_number`."""
    finders = (last_solution, last_boxed, after_hashes, last_number)
    return next((found for find in finders if (found := find(text)) is not None), None)
