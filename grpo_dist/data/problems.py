"""Rows with prompts and reference answers as GRPO needs them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from grpo_dist.config.sections import DataSection, SourceSection
from grpo_dist.data.columns import Tally, inner_name, leaves, map_columns
from grpo_dist.data.identity import KEY, problem_key
from grpo_dist.data.messages import Messages, ends_answered, messages_in_text, to_messages
from grpo_dist.data.text import as_text, excerpt, is_missing, place, set_option
from grpo_dist.errors import DataError
from grpo_dist.text import plural

if TYPE_CHECKING:
    from datasets import Dataset


GSM8K_MARK = "####"
GROUPED_NUMBER = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?")
BOXED = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|\s+(?P<bare>(?:\\.|[^$\\{])(?:\\.|[^$\\])*)\$)", re.DOTALL)

MOST_LINES, MOST_CHARACTERS = 4, 400
"""Longest text, in characters, that counts as an answer rather than a solution."""

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

    MATH also writes `\fbox{…}` and `$\boxed 2$`, as its own grader accepts (github.com/hendrycks/math).
    """
    for match in reversed(list(BOXED.finditer(text))):
        if match["bare"]:
            return match["bare"].strip()
        end = _closing_brace(text, match.end())
        if end is not None:
            return text[match.end() : end].strip() or None
    return None


def _closing_brace(text: str, start: int) -> int | None:
    """Position of the brace that closes the one before `start`; `\\{` and `\\}` are literal braces and do not count."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


EXTRACTORS: dict[str, Extractor] = {"none": str, "gsm8k": gsm8k, "boxed": boxed}


def to_answer(value: Any, extract: Extractor, where: str, source: SourceSection) -> str | None:
    """The reference answer as text; None when there is no value, or the extractor finds none in it.

    Raises:
        DataError: the value is an object, or a list of several answers.
    """
    if isinstance(value, (list, dict)):
        what = f"{len(value)} answers, one is compared" if isinstance(value, list) else "an answer is text or a number"
        raise DataError(f"{where}: {what}; this is {excerpt(value)}", hint=_hint(value, source))
    return None if is_missing(value) else extract(as_text(value))


def only_one(value: Any) -> Any:
    """The answer in a list of one answer, or of several equal ones; also if the list is written as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith(('["', "['")):
        value = _written_list(value)
    if not isinstance(value, list):
        return value
    different = [one for number, one in enumerate(value) if one not in value[:number]]
    if not different:
        return None
    return only_one(different[0]) if len(different) == 1 else value


def _written_list(text: str) -> Any:
    """A list of one text, as JSON or as Python prints it; other text unchanged: `["a", "b"]` may itself be the
    answer."""
    try:
        value = json.loads(text) if text.lstrip().startswith('["') else ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str) else text


def _hint(value: list | dict, source: SourceSection) -> str:
    """Names for the answer inside an object."""
    column = source.columns.get("answer", "answer")
    inner = list(leaves(column, value)) if isinstance(value, dict) else [f"{column}.0"]
    path = (inner_name("answer", inner) or inner[0]) if inner else "COLUMN"
    lead = "" if isinstance(value, dict) else "to take the first: "
    return lead + set_option(f"{place(source)}.columns", dict(source.columns) | {"answer": path})


def overlong(answers: Sequence[str | None], extractor: str, where: str) -> str | None:
    """A note about answers that are whole solutions; None if none is."""
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


TOLERATED = 0.01
"""Share of answers in which the extractor may find nothing; more is an error."""


def to_problems(
    rows: Dataset,
    section: DataSection,
    add_system: Callable[[Messages], Messages],
    need_answers: bool,
    tally: Tally,
    reads: Callable[[str], bool] = lambda name: False,
) -> Dataset:
    """Columns `prompt` (list of {role, content}, with `add_system` applied), `answer` (text), KEY, and all others.

    Rows with an empty prompt are dropped, and so are the few (under 1 %) in whose answer the extractor finds nothing.
    Without `need_answers` a data set may lack the column, and an answer may be None.

    Raises:
        DataError: a column is missing, a prompt is malformed, or answers are missing.
    """
    tally.count("loaded", len(rows))
    has_answers = need_answers or "answer" in section.columns or "answer" in rows.column_names
    rows = map_columns(rows, section, ("prompt", "answer") if has_answers else ("prompt",), tally, reads)
    prompts = [
        to_messages(value, f"{_where(section, 'prompt')}, row {n}") for n, value in enumerate(rows["prompt"][:], 1)
    ]
    _tell_cut_off(rows["prompt"][:], tally)
    answers = _answers(rows["answer"][:], section, need_answers) if has_answers else None
    _tell_written(rows["prompt"][:], rows["answer"][:] if has_answers else (), answers or (), tally)
    kept = _with_prompt(prompts, section, tally)
    if need_answers:
        kept = _with_answer(kept, answers, rows["answer"][:], section, tally)
        _tell_overlong([answers[index] for index in kept], section, tally)
    return _rebuilt(rows, kept, prompts, add_system, answers)


def _tell_cut_off(cells: Sequence[Any], tally: Tally) -> None:
    answered = sum(map(ends_answered, cells))
    if answered:
        tally.note(f"{plural(answered, 'conversation')} of {len(cells):,} end with an answer, which is left out")


def _tell_written(prompts: Sequence[Any], cells: Sequence[Any], answers: Sequence[str | None], tally: Tally) -> None:
    """Prompts and answers that are text in another notation than plain text."""
    messages = sum(messages_in_text(value) is not None for value in prompts)
    if messages:
        tally.note(f"messages written as text: {messages:,} of {plural(len(prompts), 'prompt')}, read as messages")
    lists = sum(isinstance(cell, str) and only_one(cell) != cell for cell in cells)
    if lists:
        tally.note(f"lists of one answer written as text: {lists:,} of {len(cells):,}; that answer is taken")
    lines = [row for row, answer in enumerate(answers, 1) if 0 < (answer or "").strip().count("\n") < MOST_LINES]
    if lines:
        tally.note(
            f"answers of several lines: {len(lines):,} of {len(answers):,}, the first is row {lines[0]}: "
            f"{excerpt(answers[lines[0] - 1])}"
        )


def _tell_overlong(answers: Sequence[str | None], section: DataSection, tally: Tally) -> None:
    said = overlong(answers, section.answer_extractor, _where(section, "answer"))
    if said:
        tally.note(said)


def _where(section: DataSection, ours: str) -> str:
    """`data: column 'question'`"""
    return f"{place(section)}: column {section.columns.get(ours, ours)!r}"


def _answers(values: Sequence[Any], section: DataSection, needed: bool) -> list[str | None]:
    """Answers as text, None for a missing one.

    Raises:
        DataError: an answer is required and its cell is empty.
    """
    values = [only_one(value) for value in values]
    missing = [number for number, value in enumerate(values, 1) if is_missing(value)]
    if missing and needed:
        raise DataError(
            f"{_where(section, 'answer')}: {plural(len(missing), 'row')} of {len(values):,} without an answer, "
            f"the first is row {missing[0]}",
            hint="remove these rows, or use rewards that read no answer and --set evaluation.enabled=false",
        )
    extract = EXTRACTORS[section.answer_extractor]
    where = _where(section, "answer")
    return [to_answer(value, extract, f"{where}, row {number}", section) for number, value in enumerate(values, 1)]


def _with_prompt(prompts: list[Messages | None], section: DataSection, tally: Tally) -> list[int]:
    kept = [index for index, prompt in enumerate(prompts) if prompt is not None]
    empty = len(prompts) - len(kept)
    tally.count("empty_prompts", empty)
    if not kept:
        raise DataError(
            f"{_where(section, 'prompt')}: all {plural(empty, 'prompt')} are empty",
            hint="name the column that holds the question: --set 'data.columns={prompt: COLUMN}'",
        )
    if empty:
        tally.note(f"dropped {plural(empty, 'row')} of {len(prompts):,} with an empty prompt")
    return kept


def _with_answer(
    rows: list[int], answers: list[str | None], values: Sequence[Any], section: DataSection, tally: Tally
) -> list[int]:
    unread = [index for index in rows if answers[index] is None]
    tally.count("unread_answers", len(unread))
    if not unread:
        return rows
    first = f"row {unread[0] + 1}: {excerpt(values[unread[0]])}"
    amount = f"{plural(len(unread), 'row')} of {len(rows):,}"
    found = f"{section.answer_extractor!r} finds no answer in {amount}, the first is {first}"
    if len(unread) >= TOLERATED * len(rows):
        raise DataError(
            f"{_where(section, 'answer')}: data.answer_extractor {found}",
            hint=f"{set_option('data.answer_extractor', 'none')} takes the column as it is",
        )
    tally.note(f"dropped {plural(len(unread), 'row')}: answer_extractor {found}")
    without = set(unread)
    return [index for index in rows if index not in without]


def _rebuilt(
    rows: Dataset,
    kept: list[int],
    prompts: list[Messages | None],
    add_system: Callable[[Messages], Messages],
    answers: list[str | None] | None,
) -> Dataset:
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    features = {"prompt": List({"role": Value("string"), "content": Value("string")})}
    columns: dict[str, list[Any]] = {"prompt": [add_system(prompts[index]) for index in kept]}
    if answers is not None:
        features["answer"] = Value("string")
        columns["answer"] = [answers[index] for index in kept]
    others = rows.remove_columns(list(columns)).select(kept)
    keys = {KEY: [problem_key(prompts[index]) for index in kept]}
    ours = Dataset.from_dict(columns | keys, features=Features(features | {KEY: Value("string")}))
    return concatenate_datasets([ours, others], axis=1) if others.column_names else ours
