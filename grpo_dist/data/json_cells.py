"""Columns that keep each cell as it is in its row, where Arrow would give it the keys or the type of other rows.

Such a column has the type `Json` of `datasets`: it holds JSON text, and whoever reads a cell gets the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


def read_exactly() -> None:
    """Make `datasets` read JSON cells with Python's parser, in this process.

    Its own rounds floats, refuses small ones and turns integers of more than 64 bits into text. A subclass of `Json`
    would not last: the features of joined columns are made again.
    """
    from datasets import Json

    Json.decode_example = _decode


def _decode(_self: object, text: str, token_per_repo_id: Mapping[str, Any] | None = None) -> Any:
    return json.loads(text)


def dataset_of(columns: Mapping[str, Sequence[Any]]) -> Dataset:
    """The columns as a data set in memory, each cell as it is.

    Raises:
        UnicodeEncodeError: half a surrogate pair in a text.
        TypeError: values of several types in a column that are not all JSON.
    """
    import pyarrow
    from datasets import Dataset, DatasetInfo, Features
    from datasets.table import InMemoryTable

    read_exactly()
    table = pyarrow.table({name: _array(values) for name, values in columns.items()})
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=Features.from_arrow_schema(table.schema)))


def _array(values: Sequence[Any]) -> pyarrow.Array:
    """Of Arrow's own type for the values if that changes none of them, of JSON otherwise."""
    import pyarrow

    try:
        array = pyarrow.array(values)
        if _keeps(array, values):
            return array
    except (pyarrow.ArrowException, OverflowError):
        pass
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pyarrow.array(texts, pyarrow.string()).cast(pyarrow.json_())


def _keeps(array: pyarrow.Array, values: Sequence[Any]) -> bool:
    """Whether the values can be read from the array as they are; Parquet cannot store an object without keys."""
    from pyarrow.types import is_floating, is_nested

    if not (is_floating(array.type) or is_nested(array.type)):
        return True
    try:
        text = json.dumps(values)
    except TypeError:  # Dates and bytes come from Parquet, where each column has one type.
        return True
    return "{}" not in text and text == json.dumps(array.to_pylist())


def read_problems(path: Path) -> Dataset:
    """The problems that a run has prepared, in memory."""
    from datasets import Dataset

    read_exactly()
    return Dataset.from_parquet(str(path), keep_in_memory=True)


def row_values(table: pyarrow.Table) -> list[dict[str, Any]]:
    """The rows of a table, JSON cells as values."""
    from pyarrow import JsonType

    kept = [name for name in table.column_names if isinstance(table.schema.field(name).type, JsonType)]
    return [row | {name: json.loads(row[name]) for name in kept if row[name] is not None} for row in table.to_pylist()]
