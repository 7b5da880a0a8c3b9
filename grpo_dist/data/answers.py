"""The reference answer of a problem, read from its column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from grpo_dist.config.data import SourceSection
from grpo_dist.data.columns import inner_name
from grpo_dist.data.nested import leaves
from grpo_dist.data.text import as_text, is_missing
from grpo_dist.data.wording import excerpt, place, plural, set_option
from grpo_dist.errors import DataError

GSM8K_MARK = "####"
GROUPED_NUMBER = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
BOXED = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+(?P<bare>(?:\\.|[^$\\{])(?:\\.|[^$\\])*)\$)", re.DOTALL)

MOST_LINES, MOST_CHARACTERS = 4, 400
"""Of an answer that a person writes as one."""

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


def to_answer(value: Any, extract: Extractor, where: str, source: SourceSection) -> str | None:
    """The reference answer as text; None when there is no value, or the extractor finds nothing in it.

    Raises:
        DataError: the value is an object, or a list of several answers.
    """
    if isinstance(value, (list, dict)):
        what = f"{len(value)} answers, one is compared" if isinstance(value, list) else "an answer is text or a number"
        raise DataError(f"{where}: {what}; this is {excerpt(value)}", hint=_hint(value, source))
    return None if is_missing(value) else extract(as_text(value))


def only_one(value: Any) -> Any:
    """What a list of one answer holds, or of several that are the same; also where it is written as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        value = _json_list(value)
    if not isinstance(value, list):
        return value
    different = [one for number, one in enumerate(value) if one not in value[:number]]
    if not different:
        return None
    return only_one(different[0]) if len(different) == 1 else value


def _json_list(text: str) -> Any:
    """A list of one text, as JSON; other text as it is: `["a", "b"]` may be what the problem asks for."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else text


def _hint(value: list | dict, source: SourceSection) -> str:
    """How the answer inside is named."""
    column = source.columns.get("answer", "answer")
    inner = list(leaves(column, value)) if isinstance(value, dict) else [f"{column}.0"]
    path = (inner_name("answer", inner) or inner[0]) if inner else "COLUMN"
    lead = "" if isinstance(value, dict) else "to take the first: "
    return lead + set_option(f"{place(source)}.columns", dict(source.columns) | {"answer": path})


def overlong(answers: Sequence[str | None], extractor: str, where: str) -> str | None:
    """What to say of answers that are whole solutions rather than answers; None where none is."""
    found = [
        row
        for row, answer in enumerate(answers, 1)
        if answer and (answer.strip().count("\n") >= MOST_LINES or len(answer) > MOST_CHARACTERS)
    ]
    if not found:
        return None
    first = answers[found[0] - 1]
    text = (
        f"{where}: {plural(len(found), 'answer')} of {len(answers):,} have more than {MOST_LINES} lines or "
        f"{MOST_CHARACTERS} characters, which no completion will match; the first is row {found[0]}: {excerpt(first)}"
    )
    fitting = next((name for name in ("gsm8k", "boxed") if EXTRACTORS[name](first) is not None), None)
    if extractor == "none" and fitting:
        return f"{text}. {set_option('data.answer_extractor', fitting)} takes {excerpt(EXTRACTORS[fitting](first))}"
    return f"{text}. If another column holds the answer alone: --set data.columns.answer=COLUMN"
