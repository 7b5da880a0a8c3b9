"""Examples for the supervised warm start: a prompt and the completion to learn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from grpo_dist.config.sections import SourceSection, WarmStartSection
from grpo_dist.data.columns import Tally, map_columns
from grpo_dist.data.identity import Problems, problem_key
from grpo_dist.data.messages import Messages, to_messages
from grpo_dist.data.problems import only_one
from grpo_dist.data.sources import load_rows
from grpo_dist.data.text import as_text, excerpt, is_missing, is_plain_number, place
from grpo_dist.errors import DataError
from grpo_dist.text import plural

START, END = "<start_working_out>", "<end_working_out>"
THINK = re.compile(r"</?think>")

Cells = Mapping[str, Mapping[int, Any]]
"""Our column name → number of the row, from 1 → value."""


def warm_start_examples(
    section: WarmStartSection,
    add_system: Callable[[Messages], Messages],
    tally: Tally,
    *,
    prefilled: bool,
    held: Problems,
) -> list[dict[str, Any]]:
    """`{"prompt": messages, "completion": text}` of every row whose problem is not held out.

    `add_system` adds the system prompt as GRPO does.

    A column `completion` is used as it is; otherwise `reasoning` (think tags stripped) and `answer` are put into our
    tags, after the opening one unless the generation prompt holds it already (`prefilled`).

    Raises:
        DataError: a column is missing, a row lacks a part, no answer is a number where only numbers are wanted, or
            every problem is held out.
    """
    source = section.data
    rows = load_rows(source, source.split)
    whole = "completion" in source.columns or (
        "completion" in rows.column_names and not {"reasoning", "answer"} & set(source.columns)
    )
    parts = ("completion",) if whole else ("reasoning", "answer")
    judged = ("answer",) if section.numeric_answers else ()
    rows = map_columns(rows, source, dict.fromkeys(("prompt", *parts, *judged)))
    kept = _with_number(source, rows["answer"][:], tally) if judged else range(len(rows))
    kept = _not_held_out(source, rows["prompt"][:], kept, held, tally)
    cells = {name: _cells(rows[name][:], kept) for name in ("prompt", *parts)}
    prompts = [to_messages(value, _where(source, "prompt", row)) for row, value in cells["prompt"].items()]
    _check_complete(source, cells | {"prompt": dict(zip(cells["prompt"], prompts, strict=True))})
    texts = _texts(source, cells, "completion") if whole else _wrapped(source, cells, prefilled)
    return [{"prompt": add_system(prompt), "completion": text} for prompt, text in zip(prompts, texts, strict=True)]


def _cells(values: Sequence[Any], kept: Iterable[int]) -> dict[int, Any]:
    return {row + 1: values[row] for row in kept}


def _not_held_out(
    source: SourceSection, prompts: Sequence[Any], rows: Iterable[int], held: Problems, tally: Tally
) -> list[int]:
    """Indices of the rows that may be trained on; rows without a prompt are detected later."""
    if not len(held):
        return list(rows)
    rows = list(rows)
    asked = {row: to_messages(prompts[row], _where(source, "prompt", row + 1)) for row in rows}
    kept = [row for row in rows if asked[row] is None or problem_key(asked[row]) not in held]
    left_out = len(rows) - len(kept)
    tally.count("held_out", left_out)
    if left_out:
        whose = "its problem is" if left_out == 1 else "their problems are"
        tally.note(f"left out {plural(left_out, 'example')} of {len(rows):,}: {whose} held out")
    if not kept:
        raise DataError(
            f"{place(source)}: the problems of all {len(rows):,} examples are held out for the comparison",
            hint="take other examples, or hold out less: --set data.eval_fraction=0.05",
        )
    return kept


def _with_number(source: SourceSection, answers: Sequence[Any], tally: Tally) -> list[int]:
    """Indices of the answers that are plain numbers."""
    answers = [only_one(value) for value in answers]
    kept = [row for row, value in enumerate(answers) if not is_missing(value) and is_plain_number(as_text(value))]
    if not kept:
        column = source.columns.get("answer", "answer")
        raise DataError(
            f"warm_start.numeric_answers: none of the {plural(len(answers), 'answer')} in column {column!r} is a plain "
            f"number, the first is {excerpt(answers[0])}",
            hint="--set warm_start.numeric_answers=false",
        )
    tally.note(f"{len(kept):,} of {plural(len(answers), 'example')} have a plain number for an answer")
    return kept


def wrap(reasoning: str, answer: str, *, prefilled: bool) -> str:
    """Reasoning and solution in our tags, think tags stripped."""
    opening = "" if prefilled else START
    return f"{opening}{THINK.sub('', reasoning).strip()}{END}<SOLUTION>{answer.strip()}</SOLUTION>"


def _wrapped(source: SourceSection, cells: Cells, prefilled: bool) -> list[str]:
    pairs = zip(_texts(source, cells, "reasoning"), _texts(source, cells, "answer"), strict=True)
    return [wrap(reasoning, answer, prefilled=prefilled) for reasoning, answer in pairs]


def _texts(source: SourceSection, cells: Cells, name: str) -> list[str]:
    cells = {row: only_one(value) if name == "answer" else value for row, value in cells[name].items()}
    for row, value in cells.items():
        if isinstance(value, (list, dict)):
            raise DataError(f"{_where(source, name, row)}: text is expected, this is {excerpt(value)}")
    return [as_text(value) for value in cells.values()]


def _check_complete(source: SourceSection, cells: Cells) -> None:
    for name, column in cells.items():
        empty = [row for row, value in column.items() if is_missing(value)]
        if empty:
            raise DataError(
                f"{_where(source, name, empty[0])}: empty, and so are {plural(len(empty) - 1, 'row')} after it",
                hint="remove these rows",
            )


def _where(source: SourceSection, ours: str, row: int) -> str:
    return f"{place(source)}: column {source.columns.get(ours, ours)!r}, row {row}"
