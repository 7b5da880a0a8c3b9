"""Examples for the supervised warm start: a prompt and the completion to learn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grpo_dist.config.data import SourceSection
from grpo_dist.data.columns import map_columns
from grpo_dist.data.messages import Messages, to_messages
from grpo_dist.data.sources import load_rows
from grpo_dist.data.text import as_text, is_missing
from grpo_dist.data.wording import excerpt, place, plural
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

START, END = "<start_working_out>", "<end_working_out>"
THINK = re.compile(r"</?think>")


def warm_start_examples(
    source: SourceSection, dress: Callable[[Messages], Messages], *, prefilled: bool
) -> list[dict[str, Any]]:
    """`{"prompt": messages, "completion": text}` of every row; `dress` adds the system prompt as in GRPO.

    A column `completion` is used as it is; otherwise `reasoning` (think tags stripped) and `answer` are put into our
    tags, after the opening one unless the generation prompt holds it already (`prefilled`).

    Raises:
        DataError: a column is missing, or a row lacks a part.
    """
    rows = load_rows(source, source.split)
    whole = "completion" in source.columns or (
        "completion" in rows.column_names and not {"reasoning", "answer"} & set(source.columns)
    )
    parts = ("completion",) if whole else ("reasoning", "answer")
    rows = map_columns(rows, source, ("prompt", *parts))
    prompts = [to_messages(value, _where(source, "prompt", row)) for row, value in enumerate(rows["prompt"][:], 1)]
    _check_complete(source, {"prompt": prompts} | {name: rows[name][:] for name in parts})
    texts = _texts(source, rows, "completion") if whole else _wrapped(source, rows, prefilled)
    return [{"prompt": dress(prompt), "completion": text} for prompt, text in zip(prompts, texts, strict=True)]


def wrap(reasoning: str, answer: str, *, prefilled: bool) -> str:
    """Working-out and solution in our tags, think tags stripped."""
    opening = "" if prefilled else START
    return f"{opening}{THINK.sub('', reasoning).strip()}{END}<SOLUTION>{answer.strip()}</SOLUTION>"


def _wrapped(source: SourceSection, rows: Dataset, prefilled: bool) -> list[str]:
    pairs = zip(_texts(source, rows, "reasoning"), _texts(source, rows, "answer"), strict=True)
    return [wrap(reasoning, answer, prefilled=prefilled) for reasoning, answer in pairs]


def _texts(source: SourceSection, rows: Dataset, name: str) -> list[str]:
    values = rows[name][:]
    for row, value in enumerate(values, 1):
        if isinstance(value, (list, dict)):
            raise DataError(f"{_where(source, name, row)}: text is expected, this is {excerpt(value)}")
    return [as_text(value) for value in values]


def _check_complete(source: SourceSection, columns: dict[str, list[Any]]) -> None:
    for name, values in columns.items():
        empty = [row for row, value in enumerate(values, 1) if is_missing(value)]
        if empty:
            raise DataError(
                f"{_where(source, name, empty[0])}: empty, and so are {plural(len(empty) - 1, 'row')} after it",
                hint="remove these rows",
            )


def _where(source: SourceSection, ours: str, row: int) -> str:
    return f"{place(source)}: column {source.columns.get(ours, ours)!r}, row {row}"
