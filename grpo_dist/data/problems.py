"""Rows with prompts and answers as GRPO takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from grpo_dist.config.data import DataSection
from grpo_dist.data.answers import EXTRACTORS, only_one, overlong, to_answer
from grpo_dist.data.columns import map_columns
from grpo_dist.data.identity import KEY, problem_key
from grpo_dist.data.messages import Messages, ends_answered, to_messages
from grpo_dist.data.tally import Tally
from grpo_dist.data.text import is_missing
from grpo_dist.data.wording import excerpt, place, plural, set_option
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

TOLERATED = 0.01
"""Share of answers in which the extractor may find nothing before that is an error."""


def to_problems(
    rows: Dataset,
    section: DataSection,
    dress: Callable[[Messages], Messages],
    need_answers: bool,
    tally: Tally,
    reads: Callable[[str], bool] = lambda name: False,
) -> Dataset:
    """Columns `prompt` (list of {role, content}; `dress` adds the system prompt), `answer` (text), KEY, and all others.

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
    kept = _with_prompt(prompts, section, tally)
    if need_answers:
        kept = _with_answer(kept, answers, rows["answer"][:], section, tally)
        _tell_overlong([answers[index] for index in kept], section, tally)
    return _rebuilt(rows, kept, prompts, dress, answers)


def _tell_cut_off(cells: Sequence[Any], tally: Tally) -> None:
    answered = sum(map(ends_answered, cells))
    if answered:
        tally.note(f"{plural(answered, 'conversation')} of {len(cells):,} end with an answer, which is left out")


def _tell_overlong(answers: Sequence[str | None], section: DataSection, tally: Tally) -> None:
    said = overlong(answers, section.answer_extractor, _where(section, "answer"))
    if said:
        tally.note(said)


def _where(section: DataSection, ours: str) -> str:
    """`data: column 'question'`"""
    return f"{place(section)}: column {section.columns.get(ours, ours)!r}"


def _answers(values: Sequence[Any], section: DataSection, needed: bool) -> list[str | None]:
    """Answers as text, None where there is none.

    Raises:
        DataError: an answer is needed and its cell is empty.
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
    dress: Callable[[Messages], Messages],
    answers: list[str | None] | None,
) -> Dataset:
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    features = {"prompt": List({"role": Value("string"), "content": Value("string")})}
    columns: dict[str, list[Any]] = {"prompt": [dress(prompts[index]) for index in kept]}
    if answers is not None:
        features["answer"] = Value("string")
        columns["answer"] = [answers[index] for index in kept]
    others = rows.remove_columns(list(columns)).select(kept)
    keys = {KEY: [problem_key(prompts[index]) for index in kept]}
    ours = Dataset.from_dict(columns | keys, features=Features(features | {KEY: Value("string")}))
    return concatenate_datasets([ours, others], axis=1) if others.column_names else ours
