"""Maps the columns of a data set to those we train on: ours first, all others kept for reward functions.

A column inside a column has a dotted path: `reward_model.ground_truth`, `messages.0.content`, `answers.-1`. `Tally`
counts what was loaded, dropped and kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpo_dist.config.sections import SourceSection
from grpo_dist.data.json_cells import row_values
from grpo_dist.data.readers import from_rows
from grpo_dist.data.text import listing, place, set_option
from grpo_dist.errors import DataError
from grpo_dist.text import closest, plural

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class Tally:
    """Collects counts and notes while problems pass through the steps.

    `what` opens each note (`held-out: …`) and, without hyphen or space, each count (`heldout_too_long`).
    """

    what: str = ""
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes.append(f"{self.what}: {text}" if self.what else text)

    def count(self, name: str, number: int) -> None:
        prefix = f"{re.sub('[- ]', '', self.what)}_" if self.what else ""
        self.counts[prefix + name] = number


DEEPEST = 4


def with_nested(dataset: Dataset, paths: Iterable[str]) -> Dataset:
    """The data set with a column for each dotted path that leads to a value in at least one row.

    A column whose own name contains the dots takes precedence. Rows in which the path does not exist have None.
    """
    from datasets import concatenate_datasets

    for path in dict.fromkeys(paths):
        column, inner = _split(dataset, path)
        if column is None:
            continue
        values = [cell_at(cell, inner) for cell in dataset[column][:]]
        if any(value is not None for value in values):
            dataset = concatenate_datasets([dataset, from_rows({path: value} for value in values)], axis=1)
    return dataset


def paths_in(dataset: Dataset) -> list[str]:
    """Names of the columns; for a column of objects, the dotted paths into its first row instead."""
    if not len(dataset):
        return dataset.column_names
    row = dataset.with_format("arrow")[:1].to_pylist()[0]
    return [path for name in dataset.column_names for path in leaves(name, row[name])]


def leaves(path: str, value: Any) -> Iterator[str]:
    """Dotted paths to the leaves."""
    value = _opened(value)
    if not isinstance(value, dict) or not value or path.count(".") >= DEEPEST:
        yield path
        return
    for key, inner in value.items():
        yield from leaves(f"{path}.{key}", inner)


def _split(dataset: Dataset, path: str) -> tuple[str | None, list[str]]:
    """(column, path inside it); no column if the path is itself a column, or no prefix of it is."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        column = ".".join(parts[:length])
        if column in dataset.column_names:
            return (column, parts[length:]) if length < len(parts) else (None, [])
    return None, []


def cell_at(value: Any, path: list[str]) -> Any:
    """What a path leads to inside a value; None if it leads nowhere."""
    for part in path:
        value = _opened(value)
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.lstrip("-").isdecimal():
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            return None
    return value


def _opened(value: Any) -> Any:
    """An object or list that a data set keeps as JSON text; anything else unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


RESERVED = (
    "completion",
    "completion_ids",
    "completions",
    "image",
    "images",
    "log_extra",
    "log_metric",
    "prompts",
    "trainer_state",
)
"""Names with a special meaning for TRL's GRPOTrainer: it drops, overwrites or fails on such a column."""
RENAMED = "dataset_"
PICTURES = ("image", "images", "video", "videos", "audio", "audios")
"""Columns of media that the model would need besides the text."""

USUAL_NAMES = {
    "prompt": ("question", "problem", "query", "instruction", "input", "messages", "source_prompt"),
    "answer": ("solution", "expected_answer", "final_answer", "ground_truth", "label", "target", "output", "response"),
    "completion": ("response", "output", "solution", "answer"),
    "reasoning": ("generated_solution", "reasoning_content", "thinking", "rationale", "cot"),
}


def map_columns(
    dataset: Dataset,
    source: SourceSection,
    needed: Iterable[str],
    tally: Tally | None = None,
    reads: Callable[[str], bool] = lambda name: False,
) -> Dataset:
    """Rename the source's columns to ours as `source.columns` says, and move those that collide with TRL's names.

    A source column may be a dotted path into a column of objects. Columns that are not mentioned keep their names,
    except `completions` and the like: those become `dataset_completions`, with a note.

    Args:
        reads: whether a reward may read a column under its original name; a mapped column then keeps that name too.

    Raises:
        DataError: a column is missing, holds images, or a mapping hides or reuses an existing name.
    """
    needed = tuple(needed)
    theirs = {name: name for name in needed} | source.columns
    plain = dataset
    dataset = with_nested(dataset, theirs.values())
    _check_present(plain, dataset.column_names, source, theirs)
    _check_free(dataset.column_names, source, needed)
    _check_text_only(dataset, source)
    taken = set(theirs.values())
    others = [name for name in dataset.column_names if name not in theirs and (name not in taken or reads(name))]
    renamed = {name: f"{RENAMED}{name}" for name in others if name in RESERVED}
    if renamed and tally is not None:
        tally.note(f"columns renamed, TRL uses their names: {listing(f'{a} → {b}' for a, b in renamed.items())}")
    return _assemble(dataset, theirs | {renamed.get(name, name): name for name in others})


def _check_present(dataset: Dataset, names: list[str], source: SourceSection, theirs: Mapping[str, str]) -> None:
    missing = [ours for ours, name in theirs.items() if name not in names]
    if missing:
        there = paths_in(dataset)
        guesses = {ours: guess_column(ours, theirs[ours], there) or "COLUMN" for ours in missing}
        wanted = ", ".join(_described(ours, theirs[ours]) for ours in missing)
        raise DataError(
            f"{place(source)}.columns: {source.name_or_path} has no column {wanted}; there is: {listing(there)}",
            hint=set_option(f"{place(source)}.columns", dict(source.columns) | guesses),
        )


def _check_text_only(dataset: Dataset, source: SourceSection) -> None:
    """Image columns not mapped to another name; mapping one declares that only a reward reads it."""
    for name in PICTURES:
        if name not in dataset.column_names or name in source.columns.values():
            continue
        rows = row_values(dataset.select_columns([name]).with_format("arrow")[:])  # pictures are not decoded
        shown = [number for number, row in enumerate(rows, 1) if row[name] not in (None, "", [])]
        if shown:
            kept = dict(source.columns) | {f"{RENAMED}{name}": name}
            raise DataError(
                f"{place(source)}: {plural(len(shown), 'row')} of {len(dataset):,} come with something in the column "
                f"{name!r}, the first is row {shown[0]}; the model is shown text only",
                hint="take problems without it; where only a reward reads that column: "
                + set_option(f"{place(source)}.columns", kept),
            )


def _described(ours: str, theirs: str) -> str:
    return repr(theirs) if ours == theirs else f"{theirs!r} (for {ours!r})"


def guess_column(ours: str, theirs: str, there: list[str]) -> str | None:
    """The columns and dotted paths that may be meant; None if none is likely."""
    usual = next((name for name in USUAL_NAMES.get(ours, ()) if name in there), None)
    return closest(theirs, there) or usual or inner_name(ours, there)


def inner_name(ours: str, paths: Iterable[str]) -> str | None:
    """The dotted path whose last part is a usual name for such a column."""
    last = {path.rpartition(".")[2]: path for path in reversed(list(paths)) if "." in path}
    wanted = (
        ("ground_truth", ours, *USUAL_NAMES.get(ours, ())) if ours == "answer" else (ours, *USUAL_NAMES.get(ours, ()))
    )
    return next((last[name] for name in wanted if name in last), None)


def _check_free(names: list[str], source: SourceSection, needed: tuple[str, ...]) -> None:
    for ours, theirs in source.columns.items():
        if ours in RESERVED and ours not in needed:
            raise DataError(
                f"{place(source)}.columns: {ours!r} is a name TRL uses itself",
                hint=f"give {theirs!r} another name: --set {place(source)}.columns.{RENAMED}{ours}={theirs}",
            )
        inside = theirs.startswith(f"{ours}.")
        if ours != theirs and not inside and ours in names and ours not in source.columns.values():
            kept = dict(source.columns) | {f"original_{ours}": ours}
            raise DataError(
                f"{place(source)}.columns: {ours}: {theirs} would hide the column {ours!r} that is there already",
                hint=f"give that one a name too: {set_option(f'{place(source)}.columns', kept)}",
            )


def _assemble(dataset: Dataset, theirs: Mapping[str, str]) -> Dataset:
    """Columns in the order of `theirs` (ours → theirs), types as they were; one source column may serve two of ours."""
    from datasets import concatenate_datasets

    parts = [_one_column(dataset, name, ours) for ours, name in theirs.items()]
    return concatenate_datasets(parts, axis=1)


def _one_column(dataset: Dataset, name: str, ours: str) -> Dataset:
    column = dataset.select_columns([name])
    return column if ours == name else column.rename_column(name, ours)
