"""The completions that a report shows: the best and the worst of a few steps, from TRL's `completions_*.parquet`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grpo_dist.report.numbers import finite, thinned

STEPS_SHOWN = 6
POLICY = "policy_version"
"""Optimizer steps of the policy that sampled a completion; logged when vLLM generates."""
NOT_REWARDS = {"step", "prompt", "completion", "advantage", POLICY}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One completion; `rewards` maps each function to its unweighted value, None if it gave none; `policy` is the
    version it was sampled from, None if that was not logged."""

    completion: Any
    rewards: Mapping[str, float | None]
    advantage: float | None
    policy: float | None


@dataclass(frozen=True)
class StepSamples:
    """For a step's first prompt: the completions with the highest and the lowest advantage, or just one."""

    step: int
    prompt: Any
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Samples:
    """`missing` says why there are none, and is empty when there are some."""

    steps: tuple[StepSamples, ...] = ()
    missing: str = ""


def read_samples(run: Path) -> Samples:
    """Samples of some steps, spread evenly from the first to the last that has a file."""
    files = _files(run / "completions")
    if not files:
        return Samples(missing="The run has written no completions (completions/completions_*.parquet).")
    if find_spec("pyarrow") is None:
        return Samples(missing="Reading the completions needs pyarrow: pip install pyarrow, and make the report again.")
    chosen = [files[i] for i in thinned(len(files), STEPS_SHOWN)]
    steps = tuple(found for step, path in chosen if (found := _read(step, path)))
    return Samples(steps, "" if steps else "None of the completions files can be read.")


def words(content: Any) -> str:
    """The text of a prompt or completion: a string unchanged, else the text of the last message."""
    if isinstance(content, (list, tuple)):
        return words(content[-1]) if content else ""
    if isinstance(content, Mapping):
        return words(content.get("content") or content.get("text") or "")
    return "" if content is None else str(content)


def _files(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) in the order of the steps."""
    named = ((re.fullmatch(r"completions_(\d+)\.parquet", path.name), path) for path in folder.glob("*.parquet"))
    return sorted((int(match[1]), path) for match, path in named if match)


def _read(step: int, path: Path) -> StepSamples | None:
    """None for a file without rows, or one that a running trainer has not finished writing."""
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException):
        return None
    if not rows:
        return None
    return StepSamples(step, rows[0].get("prompt"), tuple(_sample(row) for row in _best_and_worst(rows)))


def _best_and_worst(rows: list[Row]) -> list[Row]:
    """Rows of the first prompt's group; one row if all its advantages are equal."""
    group = [row for row in rows if row.get("prompt") == rows[0].get("prompt")]
    ordered = sorted(group, key=lambda row: finite(row.get("advantage")) or 0.0, reverse=True)
    first, last = ordered[0], ordered[-1]
    return [first] if first.get("advantage") == last.get("advantage") else [first, last]


def _sample(row: Row) -> Sample:
    rewards = {name: finite(value) for name, value in row.items() if name not in NOT_REWARDS and _numeric(value)}
    return Sample(row.get("completion"), rewards, finite(row.get("advantage")), finite(row.get(POLICY)))


def _numeric(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))
