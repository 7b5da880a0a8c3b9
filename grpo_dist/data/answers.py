"""The reference answer of a problem, read from its column."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from grpo_dist.data.text import as_text, is_missing
from grpo_dist.data.wording import excerpt
from grpo_dist.errors import DataError

GSM8K_MARK = "####"
GROUPED_NUMBER = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
BOXED = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+(?P<bare>(?:\\.|[^$\\{])(?:\\.|[^$\\])*)\$)", re.DOTALL)

Extractor = Callable[[str], str | None]


def gsm8k(text: str) -> str | None:
    """What follows the last `####`, with the commas of a grouped number removed: `… #### 1,234` → `1234`."""
    _, mark, answer = text.rpartition(GSM8K_MARK)
    answer = answer.strip()
    if GROUPED_NUMBER.fullmatch(answer):
        answer = answer.replace(",", "")
    return answer if mark and answer else None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` that is closed: `\boxed{\frac{1}{2}}` → `\frac{1}{2}`.

    MATH also writes `\fbox{…}` and `$\boxed 2$`, as its own grader knows (github.com/hendrycks/math).
    """
    for match in reversed(list(BOXED.finditer(text))):
        if match["bare"]:
            return match["bare"].strip()
        end = _closing_brace(text, match.end())
        if end is not None:
            return text[match.end() : end].strip() or None
    return None


def _closing_brace(text: str, start: int) -> int | None:
    """Position of the brace that closes the one before `start`; `\\{` and `\\}` are printed braces and do not count."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


EXTRACTORS: dict[str, Extractor] = {"none": str, "gsm8k": gsm8k, "boxed": boxed}


def to_answer(value: Any, extract: Extractor, where: str) -> str | None:
    """The reference answer as text; None when there is no value, or the extractor finds nothing in it.

    Raises:
        DataError: the value is a list or an object.
    """
    if isinstance(value, (list, dict)):
        raise DataError(
            f"{where}: an answer is text or a number, this is {excerpt(value)}",
            hint="name the column that holds the answer: --set 'data.columns={answer: COLUMN}'",
        )
    return None if is_missing(value) else extract(as_text(value))
