"""Which directories are runs, and which one a mistyped path may have meant."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from grpo_dist.errors import ReportError

MARKS = ("config.yaml", "plan.json", "metrics.jsonl")
"""A directory with one of these files is a run directory."""
SWEEP_FILE = "sweep.json"
"""A directory with this file holds the runs of a sweep."""
SHOWN = 8


def is_run(path: Path) -> bool:
    return any(os.path.isfile(path / name) for name in MARKS)


def is_sweep(path: Path) -> bool:
    return os.path.isfile(path / SWEEP_FILE)


def runs_below(path: Path) -> list[Path]:
    """The run itself, or the runs in a directory and in the sweeps of it, by name.

    Raises:
        ReportError: there are none.
    """
    if is_run(path):
        return [path]
    found = [run for inner in _runs_in(path, sweeps=True) for run in ([inner] if is_run(inner) else _runs_in(inner))]
    if not found:
        raise not_a_run(path)
    return found


def not_a_run(path: Path) -> ReportError:
    """The error for a path that is no run directory, with the runs it may have meant."""
    needed = f"none of {', '.join(MARKS)} is in it"
    if not os.path.exists(path):
        return ReportError(f"{path}: there is no such run directory", hint=_meant(path))
    if not os.path.isdir(path):
        return ReportError(f"{path}: a file, not a run directory", hint=_meant(path))
    return ReportError(f"{path}: no run directory, {needed}", hint=_meant(path))


def _meant(path: Path) -> str:
    if is_run(path.parent) and not os.path.isdir(path):
        return f"give the run directory: {path.parent}"
    if inside := _runs_in(path):
        return f"give one of the runs in it: {_listed(inside)}"
    beside = _runs_in(path.parent)
    if not beside:
        return "give the directory that was named when the run was started (its --output)"
    names = [run.name for run in beside]
    near = get_close_matches(path.name, names, n=1)
    question = f"did you mean {path.parent / near[0]}? " if near else ""
    return f"{question}Runs beside it: {_listed(beside)}"


def _runs_in(folder: Path, *, sweeps: bool = False) -> list[Path]:
    """By name; hidden ones are drafts."""
    try:
        shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in shown if is_run(path) or (sweeps and is_sweep(path))]
    except OSError:
        return []


def _listed(runs: list[Path]) -> str:
    more = f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else ""
    return ", ".join(str(run) for run in runs[:SHOWN]) + more
