"""The logs of a run, as a whole or while they grow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.control import OUTCOME
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.status import read_job

STAGES = ("prepare", "train", "compare", "report")
"""In order; by default the log of the last stage that has begun is shown."""
JOB = "job"
"""`--stage job` is the output of the batch script itself."""
POLL_SECONDS = 0.5
ALIVE_SECONDS = 15.0
"""Between two checks whether the run is active; Slurm should not be asked often."""
CLOSED_SECONDS = 1.0
"""Until the first check after an attempt has ended; then the pauses double, since the job may be queued again."""


@dataclass(frozen=True)
class LogFilter:
    """Which log; None means the newest attempt, or its last stage."""

    attempt: int | None = None
    stage: str | None = None


def find(run: RunDirectory, which: LogFilter) -> Path | None:
    """The log, or None if nothing has been written yet.

    Raises:
        RunDirectoryError: there is no such attempt, or stage in it.
    """
    if which.stage == JOB:
        return _job_output(run)
    numbers = _attempts(run)
    if which.attempt is not None and which.attempt not in numbers:
        there = ", ".join(map(str, numbers)) or "none yet"
        raise RunDirectoryError(f"{run.path}: there is no attempt {which.attempt}", hint=f"attempts: {there}")
    if not numbers:
        return _job_output(run)
    logs = {path.stem: path for path in (run.logs / f"attempt-{which.attempt or numbers[-1]}").glob("*.log")}
    if which.stage is None:
        return next((logs[name] for name in reversed(STAGES) if name in logs), None) or _job_output(run)
    if which.stage not in (*logs, *STAGES):
        raise RunDirectoryError(
            f"{run.path}: there is no log of {which.stage!r}", hint=f"--stage takes {', '.join([*sorted(logs), JOB])}"
        )
    return logs.get(which.stage) or (None if which.attempt else _earlier(run, which.stage))


def _earlier(run: RunDirectory, stage: str) -> Path | None:
    """The log of a stage that only an earlier attempt ran: the last one that did."""
    found = [run.logs / f"attempt-{number}" / f"{stage}.log" for number in reversed(_attempts(run))]
    return next((path for path in found if path.exists()), None)


def whole(path: Path) -> Iterator[bytes]:
    """The log piece by piece."""
    with open(path, "rb") as log:
        while piece := log.read(2**16):
            yield piece


def follow(
    run: RunDirectory,
    which: LogFilter,
    alive: Callable[[], bool],
    pause: Callable[[float], None] = time.sleep,
    ask_every: float = ALIVE_SECONDS,
) -> Iterator[tuple[Path, bytes]]:
    """(log, bytes added to it) until the run has ended; continues with the logs of later stages and attempts.

    Raises:
        RunDirectoryError: as `find`.
    """
    shown, offset, ended, asked = None, 0, False, -math.inf
    closed, pause_to_ask = None, ask_every
    while True:
        newest = find(run, which)
        added = _from(shown, offset) if shown else b""
        if added:
            offset += len(added)
            yield shown, added
        elif newest != shown:
            shown, offset = newest, 0
        elif ended:
            return
        else:
            # After the end is known, the log is read once more for what was written before it.
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
    """The last attempt of a job, if its outcome is written."""
    attempts = _attempts(run)
    return attempts[-1] if attempts and (run.logs / f"attempt-{attempts[-1]}" / OUTCOME).exists() else None


def _attempts(run: RunDirectory) -> list[int]:
    return [int(attempt.name.rpartition("-")[2]) for attempt in run.attempts()]


def _job_output(run: RunDirectory) -> Path | None:
    record = read_job(run)
    recorded = [Path(record.output)] if record and record.output else []
    found = [path for path in (*run.path.glob("slurm-*.out"), *recorded) if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
