"""Which checkpoints are complete: those sealed after every process had written its part."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from grpo_dist.run.directory import write_json

SEAL = "complete.json"


def seal(checkpoint: Path) -> None:
    """Record every file of a finished checkpoint with its size in bytes; call it when all processes have written."""
    sizes = {str(p.relative_to(checkpoint)): p.stat().st_size for p in sorted(checkpoint.rglob("*")) if p.is_file()}
    write_json(checkpoint / SEAL, sizes)


def is_complete(checkpoint: Path) -> bool:
    """Whether the checkpoint was sealed and still has every byte it was sealed with."""
    try:
        sizes = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when it was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def newest_complete(checkpoints: Path) -> Path | None:
    """The latest checkpoint a run can be resumed from."""
    return next(reversed(all_complete(checkpoints)), None)


def all_complete(checkpoints: Path) -> list[Path]:
    """All complete checkpoints, in the order of their steps."""
    return sorted(filter(is_complete, _all(checkpoints)), key=step_of)


def discard_after(checkpoints: Path, step: int) -> None:
    """Remove checkpoints of later steps, which an interrupted run did not complete."""
    for checkpoint in _all(checkpoints):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def _all(checkpoints: Path) -> list[Path]:
    return [p for p in checkpoints.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
