"""`metrics.jsonl`, one line per logged optimizer step, and the environment variables of the experiment trackers."""

from __future__ import annotations

import json
import math
import netrc
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from grpo_dist.run.directory import RunDirectory, parse_json, read_text, write_atomically


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add one step. NaN and infinities, which JSON does not have, become null."""
    finite = {name: _finite(value) for name, value in record.items()}
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(finite, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """One record per step, in order. Incomplete lines are skipped; of a step logged twice the later one counts.

    Raises:
        RunDirectoryError: it cannot be read.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in read_text(path).splitlines() if os.path.lexists(path) else ():
        try:
            record = parse(line)
        except ValueError:
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]


def parse(text: str) -> Any:
    """JSON with NaN and infinities, which Python writes but JSON does not have, as None."""
    return parse_json(text)


def truncate_after(path: Path, step: int) -> None:
    """Remove the steps that a resumed run will repeat."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


PROJECT = "grpo-dist"
"""Of the trackers, if `grpo.project` does not name one."""
WANDB_HOST = "api.wandb.ai"


def tracker_environment(
    trackers: Sequence[str], run: RunDirectory, environ: Mapping[str, str], project: str | None = None
) -> dict[str, str]:
    """Variables that make the trackers write to the run directory; those the user has set are kept.

    Without a key Weights & Biases works offline, rather than ask a job for one. A resumed run continues its record.
    """
    variables = {
        "TRACKIO_DIR": str(run.path / "trackio"),
        "TENSORBOARD_LOGGING_DIR": str(run.path / "tensorboard"),
        "WANDB_DIR": str(run.path),
        "WANDB_PROJECT": project or PROJECT,
        "WANDB_RUN_ID": sha256(str(run.path).encode()).hexdigest()[:16],
        "WANDB_RESUME": "allow",
    }
    if "wandb" in trackers and not has_wandb_key(environ):
        variables["WANDB_MODE"] = "offline"
    stated = {"WANDB_PROJECT"} if project else set()
    return {name: value for name, value in variables.items() if name not in environ or name in stated}


def has_wandb_key(environ: Mapping[str, str]) -> bool:
    """Whether a key is in the environment or in ~/.netrc."""
    if environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.path.expanduser("~/.netrc")).authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False
