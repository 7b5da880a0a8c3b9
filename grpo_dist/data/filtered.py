"""Writes the problems in a band of pass rates as a data file, and says how a configuration reads it.

The file can be named as `data.name_or_path`.
"""

from __future__ import annotations

import json
import math
import shlex
import uuid
from collections.abc import Sequence
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_dist.config.generators import OWN_GRADES, is_generated
from grpo_dist.config.sections import DataSection
from grpo_dist.data.json_cells import row_values
from grpo_dist.errors import DataError

if TYPE_CHECKING:
    from pyarrow import Table


SUFFIXES = (".jsonl", ".parquet")


def write_rows(rows: Table, path: Path) -> None:
    """Write JSONL or Parquet, by suffix, atomically.

    Raises:
        DataError: the file cannot be written, or a cell cannot be represented in JSON.
    """
    from pyarrow import parquet

    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.suffix == ".parquet":
            parquet.write_table(rows, draft)
        else:
            with open(draft, "w", encoding="utf-8") as file:
                file.writelines(f"{_json(row)}\n" for row in row_values(rows))
        draft.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})", hint="choose another --output") from error
    finally:
        draft.unlink(missing_ok=True)


def _json(row: dict[str, Any]) -> str:
    # JSON has no NaN; the readers treat null as the same.
    known = {name: None if isinstance(cell, float) and math.isnan(cell) else cell for name, cell in row.items()}
    return json.dumps(known, ensure_ascii=False, default=_as_json)


def _as_json(cell: Any) -> str:
    if isinstance(cell, date | time):
        return cell.isoformat()
    raise DataError(f"JSON cannot hold a {type(cell).__name__}, which these rows have", hint="--output NAME.parquet")


ROW = "grpo_dist_row"
"""Column with the source row number, kept while problems are prepared from the rows."""
PASS_RATE, SAMPLES = "pass_rate", "samples"


def write_filtered(source: Path, kept: Sequence[tuple[int, float]], samples: int, output: Path) -> None:
    """Write the kept rows of `source` (Parquet) with their own columns, the pass rate and its number of samples.

    Columns of an earlier filter are replaced.

    Args:
        kept: (number of the row, pass rate).

    Raises:
        DataError: `output` cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    rows = parquet.ParquetFile(source).read()
    rows = rows.drop_columns([name for name in (ROW, PASS_RATE, SAMPLES) if name in rows.column_names])
    in_order = sorted(kept)
    rows = rows.take([row for row, _ in in_order])
    rows = rows.append_column(PASS_RATE, pyarrow.array([rate for _, rate in in_order]))
    rows = rows.append_column(SAMPLES, pyarrow.array([samples] * len(in_order)))
    # The column metadata of `datasets` describes the source.
    write_rows(rows.replace_schema_metadata(None), output)


def settings_for(section: DataSection, output: Path) -> list[str]:
    """Settings needed for `data` to read the filtered file: those that selected rows have already been applied."""
    settings = [f"data.name_or_path={output}"]
    if section.known_as is not None and section.like is None:
        settings.append(f"data.like={section.known_as}")
    if section.split != "train":
        settings.append("data.split=train")
    if is_generated(section.name_or_path):
        settings += ["data.generator={}", f"rewards.functions=[{OWN_GRADES}]", f"evaluation.scorer={OWN_GRADES}"]
    chosen = ("config", "revision", "eval_split", "max_samples", "max_prompt_length_quantile")
    settings += [f"data.{name}=null" for name in chosen if getattr(section, name) is not None]
    return settings


def options(settings: Sequence[str]) -> str:
    """The same settings as options: `--set a.b=c --set …`."""
    return " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
