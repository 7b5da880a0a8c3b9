r"""Finds the final answer in a text, in any of the forms `preflight.forms.FORMS`.

Every function takes linear time on any text and returns None if there is no such answer.
"""

from __future__ import annotations

import re
from collections import deque

from grpo_dist.rewards.preflight.forms import EOS_TOKEN, FORMS, SOLUTION_END, SOLUTION_START

MAX_ALONE = 200
"""Most characters of a text that is only an answer."""

_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_NUMBER = re.compile(
    r"""(?: (?<![0-9A-Za-z)\]}]) [-+\u2212] )?      # in 10-3 the minus is no sign
        (?: [0-9]++ (?:,[0-9]++)*+ (?:\.[0-9]++)?+ | \.[0-9]++ )
        (?: /[0-9]++ | [eE][-+]?[0-9]++ )?+ %?""",
    re.VERBOSE,
)


_FENCE = re.compile(r"```[^\n`]*\n([^`]*)\n?```\s*")
_STATED = re.compile(
    r"answer(?:\*\*)?(?: is| would be|:|=| =|\*\*:)(?:\*\*)?:?\s*+(?:(?:\\\[|\$\$)[ \t]*\n\s*+)?", re.IGNORECASE
)
_STATEMENT_ENDS = re.compile(r"\.(?=\s|$)|\n|<\||</s>|,? (?:because|since|so that|which|as we)\b")
_COMMAND = re.compile(r"\\[A-Za-z]+|\\text\{[^{}]*\}")
_WORD = re.compile(r"[A-Za-z]{3,}")
_MATHEMATICAL = re.compile(r"\\[A-Za-z]|^[(\[{]|[0-9][a-df-zA-Z]|[A-Za-z]\^")
_MAX_FENCE = 4000


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


def last_answer_tag(text: str) -> str | None:
    """Inside the last pair of `<answer>` tags; not blank."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    inside = text[start + len("<answer>") : end].strip() if 0 <= start < end else ""
    return inside or None


def last_fence(text: str) -> str | None:
    """Inside a block of fenced code that ends the text; not blank."""
    start = text.rfind("```", 0, max(text.rfind("```"), 0))
    found = _FENCE.fullmatch(text, start) if start >= 0 and len(text) - start <= _MAX_FENCE else None
    return (found[1].strip() or None) if found else None


def in_words(text: str) -> str | None:
    """The text after the last `answer is` or `Answer:`, up to the end of the sentence; not blank."""
    start = max((stated.end() for stated in _STATED.finditer(text)), default=None)
    if start is None:
        return None
    end = _STATEMENT_ENDS.search(text, start)
    return text[start : end.start() if end else len(text)].strip(" *") or None


def alone(text: str) -> str | None:
    """The whole text, when it is one short line of mathematics or a few words without any number."""
    text = text.strip().removesuffix(EOS_TOKEN).strip()
    if not text or len(text) > MAX_ALONE or "\n" in text:
        return None
    without_commands = _COMMAND.sub(" ", text)
    if _MATHEMATICAL.search(text) and not _WORD.search(without_commands):
        return text
    return text if not re.search(r"[0-9]", text) and len(text.split()) <= 5 else None


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
    """The formula around the last number, else the number with its sign, decimals, denominator, exponent or `%`."""
    last = next(iter(deque(_NUMBER.finditer(text), maxlen=1)), None)
    return (_formula_around(text, last) or last[0]) if last else None


def _formula_around(text: str, number: re.Match[str]) -> str | None:
    """What stands between the dollar signs on both sides, in `it is $2\\sqrt{3}$`; $5 in prose is none."""
    start, end = text.rfind("$", 0, number.start()), text.find("$", number.end())
    formula = text[start + 1 : end] if 0 <= start < end <= start + MAX_ALONE else ""
    return formula if formula.strip() == formula and "\n" not in formula else None


FINDERS = {
    "solution": last_solution,
    "answer tags": last_answer_tag,
    "box": last_boxed,
    "hashes": after_hashes,
    "fence": last_fence,
    "words": in_words,
    "alone": alone,
    "number": last_number,
}
"""Mark of a form → the function that finds the answer."""


def final_answer(text: str) -> str | None:
    r"""The answer a text commits to, by the first of the forms whose mark it has."""
    _, thought, said = text.rpartition("</think>")
    text = said if thought and said.strip() else text
    finders = (FINDERS[mark] for mark in dict.fromkeys(form.mark for form in FORMS))
    return next((found for find in finders if (found := find(text)) is not None), None)
