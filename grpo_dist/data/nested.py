"""Columns inside columns, by dotted path: `reward_model.ground_truth`, `messages.0.content`, `answers.-1`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from grpo_dist.data.readers import from_rows

if TYPE_CHECKING:
    from datasets import Dataset

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
        values = [_at(cell, inner) for cell in dataset[column][:]]
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


def _at(value: Any, path: list[str]) -> Any:
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
