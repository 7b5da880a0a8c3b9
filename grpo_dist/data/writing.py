"""Rows of a data set into a file that `data.name_or_path` can name."""

from __future__ import annotations

import json
import math
import uuid
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from pyarrow import Table

SUFFIXES = (".jsonl", ".parquet")


def write_rows(rows: Table, path: Path) -> None:
    """Write JSONL or Parquet, as the suffix says; the file stands whole or not at all.

    Raises:
        DataError: the place cannot be written, or a cell is nothing that JSON can hold.
    """
    from pyarrow import parquet

    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.suffix == ".parquet":
            parquet.write_table(rows, draft)
        else:
            with open(draft, "w", encoding="utf-8") as file:
                file.writelines(f"{_json(row)}\n" for row in rows.to_pylist())
        draft.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})", hint="choose another --output") from error
    finally:
        draft.unlink(missing_ok=True)


def _json(row: dict[str, Any]) -> str:
    # JSON knows no NaN; the readers take null for the same.
    known = {name: None if isinstance(cell, float) and math.isnan(cell) else cell for name, cell in row.items()}
    return json.dumps(known, ensure_ascii=False, default=_as_json)


def _as_json(cell: Any) -> str:
    if isinstance(cell, date | time):
        return cell.isoformat()
    raise DataError(f"JSON cannot hold a {type(cell).__name__}, which these rows have", hint="--output NAME.parquet")
