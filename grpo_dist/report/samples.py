"""The completions that a report shows: whole groups of a few steps, from TRL's `completions_*.parquet`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grpo_dist.report.numbers import finite, thinned

STEPS_SHOWN, GROUP_SHOWN = 6, 8
JUDGES = {"accuracy": 1.0, "strict_answer": 5.0, "check_answer": 3.5}
"""Reward → what it pays at least for a right answer."""
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
    """A step's first prompt and at most GROUP_SHOWN completions of its group, by advantage, highest first."""

    step: int
    prompt: Any
    samples: tuple[Sample, ...]
    size: int
    """Completions of the group."""
    right: int | None
    """How many of them are right; None if no reward tells."""
    gold: str
    """The reference answer; empty if there is none."""


@dataclass(frozen=True)
class Samples:
    """`missing` says why there are none, and is empty when there are some."""

    steps: tuple[StepSamples, ...] = ()
    missing: str = ""


def read_samples(run: Path, judges: Mapping[str, float] = JUDGES) -> Samples:
    """Samples of some steps, spread evenly from the first to the last that has a file.

    Args:
        judges: reward → what it pays at least for a right answer, the best judge first.
    """
    files = _files(run / "completions")
    if not files:
        return Samples(missing="The run has written no completions (completions/completions_*.parquet).")
    if find_spec("pyarrow") is None:
        return Samples(missing="Reading the completions needs pyarrow: pip install pyarrow, and make the report again.")
    chosen = [files[i] for i in thinned(len(files), STEPS_SHOWN)]
    golds = _golds(run / "data" / "train.parquet")
    steps = tuple(found for step, path in chosen if (found := _read(step, path, judges, golds)))
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


def _golds(path: Path) -> dict[str, str]:
    """The last message of each problem → its answer; empty if the file is not there or cannot be read."""
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path, columns=["prompt", "answer"]).to_pylist()
    except (OSError, pyarrow.ArrowException):
        return {}
    return {words(row.get("prompt")): str(row["answer"]) for row in rows if row.get("answer") is not None}


def _gold(prompt: str, golds: Mapping[str, str]) -> str:
    """A prompt may be the text that the model reads, of which the message is a part; the longest one counts."""
    if prompt in golds:
        return golds[prompt]
    return golds[max(inside, key=len)] if (inside := [one for one in golds if one and one in prompt]) else ""


def _read(step: int, path: Path, judges: Mapping[str, float], golds: Mapping[str, str]) -> StepSamples | None:
    """None for a file without rows, or one that a running trainer has not finished writing."""
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException):
        return None
    if not rows:
        return None
    prompt = rows[0].get("prompt")
    group = [_sample(row) for row in rows if row.get("prompt") == prompt]
    group.sort(key=lambda one: one.advantage or 0.0, reverse=True)
    shown = tuple(group[index] for index in thinned(len(group), GROUP_SHOWN))
    return StepSamples(step, prompt, shown, len(group), _right(group, judges), _gold(words(prompt), golds))


def _right(group: Sequence[Sample], judges: Mapping[str, float]) -> int | None:
    """Completions that the first judge among the rewards pays as right."""
    judge = next((name for name in judges if name in group[0].rewards), None)
    return None if judge is None else sum((one.rewards[judge] or 0.0) >= judges[judge] for one in group)


def _sample(row: Row) -> Sample:
    rewards = {name: finite(value) for name, value in row.items() if name not in NOT_REWARDS and _numeric(value)}
    return Sample(row.get("completion"), rewards, finite(row.get("advantage")), finite(row.get(POLICY)))


def _numeric(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))
