"""What the processes of a run printed, as a whole or as it comes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.control import OUTCOME
from grpo_dist.run.directory import RunDirectory

STAGES = ("prepare", "train", "compare", "report")
"""In their order; the log of the last that has begun is the one to look at."""
JOB = "job"
"""The name under which the output of the batch script itself is asked for."""
POLL_SECONDS = 0.5
ALIVE_SECONDS = 15.0
"""Between two questions whether the run is still going on; Slurm does not like to be asked often."""
CLOSED_SECONDS = 1.0
"""So soon it is asked when an attempt has said how it ended, then less and less often: it may be in the queue again."""


@dataclass(frozen=True)
class LogFilter:
    """Which log; None is the newest attempt, and its last stage."""

    attempt: int | None = None
    stage: str | None = None


def find(run: RunDirectory, wanted: LogFilter) -> Path | None:
    """The log, None when nothing has been written yet.

    Raises:
        RunDirectoryError: there is no such attempt, or stage in it.
    """
    if wanted.stage == JOB:
        return _job_output(run)
    numbers = _attempts(run)
    if wanted.attempt is not None and wanted.attempt not in numbers:
        there = ", ".join(map(str, numbers)) or "none yet"
        raise RunDirectoryError(f"{run.path}: there is no attempt {wanted.attempt}", hint=f"attempts: {there}")
    if not numbers:
        return _job_output(run)
    logs = {path.stem: path for path in (run.logs / f"attempt-{wanted.attempt or numbers[-1]}").glob("*.log")}
    if wanted.stage is None:
        return next((logs[name] for name in reversed(STAGES) if name in logs), None) or _job_output(run)
    if wanted.stage not in (*logs, *STAGES):
        raise RunDirectoryError(
            f"{run.path}: there is no log of {wanted.stage!r}", hint=f"--stage takes {', '.join([*sorted(logs), JOB])}"
        )
    return logs.get(wanted.stage)


def whole(path: Path) -> Iterator[bytes]:
    """The log piece by piece."""
    with open(path, "rb") as log:
        while piece := log.read(2**16):
            yield piece


def follow(
    run: RunDirectory,
    wanted: LogFilter,
    alive: Callable[[], bool],
    pause: Callable[[float], None] = time.sleep,
    ask_every: float = ALIVE_SECONDS,
) -> Iterator[tuple[Path, bytes]]:
    """(log, what was added to it), until the run has ended; goes on with the next stage's log, and the next attempt's.

    Raises:
        RunDirectoryError: as `find`.
    """
    shown, offset, ended, asked = None, 0, False, -math.inf
    closed, pause_to_ask = None, ask_every
    while True:
        newest = find(run, wanted)
        added = _from(shown, offset) if shown else b""
        if added:
            offset += len(added)
            yield shown, added
        elif newest != shown:
            shown, offset = newest, 0
        elif ended:
            return
        else:
            # What was written before the end is read once more after it is known.
            if (newly := _last_closed(run)) != closed:
                closed, pause_to_ask = newly, min(CLOSED_SECONDS, ask_every)
            if time.monotonic() - asked >= pause_to_ask:
                ended, asked = not alive(), time.monotonic()
                pause_to_ask = min(2 * pause_to_ask, ask_every)
            if not ended:
                pause(POLL_SECONDS)


def _from(path: Path, offset: int) -> bytes:
    with open(path, "rb") as log:
        log.seek(offset)
        return log.read()


def _last_closed(run: RunDirectory) -> int | None:
    """The last attempt of a job, if it has said how it ended."""
    attempts = _attempts(run)
    return attempts[-1] if attempts and (run.logs / f"attempt-{attempts[-1]}" / OUTCOME).exists() else None


def _attempts(run: RunDirectory) -> list[int]:
    names = (re.fullmatch(r"attempt-(\d+)", path.name) for path in run.logs.glob("attempt-*"))
    return sorted(int(name[1]) for name in names if name)


def _job_output(run: RunDirectory) -> Path | None:
    return max(run.path.glob("slurm-*.out"), key=lambda path: path.stat().st_mtime, default=None)
