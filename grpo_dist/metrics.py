"""`metrics.jsonl`: one line per logged optimizer step, written as training goes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dist.run_directory import write_atomically


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one step. NaN and infinities, which JSON does not have, become null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(finite, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a line cut off by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def truncate_after(path: Path, step: int) -> None:
    """Forget the steps that a resumed run will do again."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
