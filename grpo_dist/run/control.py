"""What the processes of a run tell each other through files: stop, how an attempt ended, which reward runs, which step.

A stop request and training's answer are files in the run directory. So is the outcome of an attempt, because srun
reports only the largest exit code of all nodes. The running reward function is noted because it may crash its process,
or never return.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from grpo_dist.errors import RunDirectoryError
from grpo_dist.run.checkpoints import newest_step
from grpo_dist.run.directory import RunDirectory, read_as, read_json, read_text, write_atomically, write_json

STOPPED = "stopped.json"


class Why(StrEnum):
    """Why training is asked to stop. The job script writes the first two values."""

    LIMIT = "limit"
    """The time limit is near, or Slurm wants the nodes for another job soon."""
    TERMINATED = "terminated"
    """Slurm is ending the job."""
    ASKED = "asked"
    """A user typed `grpo-dist checkpoint`."""


class Stopped(Exception):
    """Training saved after `step` because it was asked to."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved after step {step} and stopped, as asked")
        self.step = step


def request_stop(run: RunDirectory, why: Why) -> None:
    """Ask training to save at its next step and stop."""
    write_atomically(run.stop_request, why)


def stop_requested(run: RunDirectory) -> Why | None:
    """Why training is asked to stop; None if it is not."""
    if not run.stop_request.exists():
        return None
    try:
        return Why(read_text(run.stop_request).strip())
    except (RunDirectoryError, ValueError):
        return Why.LIMIT


def note_stop(attempt: Path, step: int) -> None:
    """Training's answer: it saved after `step`."""
    write_json(attempt / STOPPED, {"step": step})


def stopped_at(attempt: Path) -> int | None:
    """The step at which training saved and stopped in this attempt; None if it did not."""
    return _step_in(attempt / STOPPED)


STARTED = "allocation.json"


@dataclass(frozen=True)
class AttemptStart:
    """What an attempt of a job began with."""

    job_id: str
    restarts: int
    """How often Slurm had restarted this job."""
    requeues: int = 0
    """How many attempts led to this one without a user's doing: restarts, and earlier jobs of the chain."""
    step: int | None = None
    """Of the newest checkpoint; None if an earlier version began the attempt."""
    ends: float | None = None
    """When Slurm's time limit ends the job, seconds since 1970; None if it has none, or Slurm did not say."""
    options: list = field(default_factory=list)
    """Of sbatch, to submit a job like this one: a list of them for each component of a heterogeneous job."""

    def write(self, attempt: Path) -> None:
        write_json(attempt / STARTED, asdict(self))


def read_start(attempt: Path) -> AttemptStart | None:
    """What the attempt began with; None if it is none of a job."""
    try:
        return read_as(AttemptStart, attempt / STARTED)
    except RunDirectoryError:
        return None


def fruitless_attempts(run: RunDirectory) -> int:
    """How many of the last attempts in a row left no newer checkpoint than they began with, whatever ended them.

    They are counted from the user's last submission on.
    """
    step, count = newest_step(run.checkpoints), 0
    for attempt in reversed(run.attempts()):
        start = read_start(attempt)
        if start is None or start.step is None or start.step < step:
            break
        step, count = start.step, count + 1
        if start.requeues == 0:
            break
    return count


OUT_OF_MEMORY = (
    r"oom-kill|oom_kill|Out of memory: Killed|Out Of Memory|DefaultCPUAllocator: can't allocate|"
    r"[Ee]xceeded (job |step )?memory limit|OOM Killed"
)
"""What the kernel, Slurm and PyTorch print when a process is ended for its memory."""
MEMORY_CAUSE = "the node is out of memory"

OUTCOME = "outcome.json"
DONE, FAILED, REFUSED = 0, 1, 2
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: the run is intact, and the same command continues it."""


@dataclass(frozen=True)
class AttemptOutcome:
    """How one attempt ended."""

    code: int
    why: str
    """One line."""
    step: int
    """Of the newest complete checkpoint; 0 when there is none."""

    def write(self, attempt: Path) -> None:
        write_json(attempt / OUTCOME, asdict(self))


def read_outcome(attempt: Path) -> AttemptOutcome | None:
    """The outcome; None if the attempt has not ended, or ended without writing one."""
    try:
        return read_as(AttemptOutcome, attempt / OUTCOME)
    except RunDirectoryError:
        return None


NOTE_PREFIX = "reward-"
NOTE_SIZE = 4096


class RewardNote:
    """The file of one process in the log directory of an attempt, overwritten in place: no step waits for a disk."""

    def __init__(self, attempt: Path, rank: int) -> None:
        self.file = os.open(attempt / f"{NOTE_PREFIX}{rank}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.running: list[str] = []

    def enter(self, what: str) -> None:
        """A function starts; async functions run concurrently."""
        self.running.append(f"{time.time():.0f} {what}")
        self._write()

    def leave(self) -> None:
        """The function that started last, or one that runs concurrently with it, has returned."""
        self.running.pop()
        self._write()

    def _write(self) -> None:
        text = "\n".join(self.running[-1:]).encode()[: NOTE_SIZE - 1]
        os.pwrite(self.file, text.ljust(NOTE_SIZE, b"\0"), 0)


def running_rewards(attempt: Path) -> str:
    """The running functions of all processes, as `reward 'mine.py:f' at step 3, since 12:00:00`; empty if none runs."""
    return "; ".join(dict.fromkeys(_notes(attempt)))


def _notes(attempt: Path) -> Iterator[str]:
    for path in sorted(attempt.glob(f"{NOTE_PREFIX}[0-9]*")):
        try:
            text = path.read_bytes().rstrip(b"\0").decode(errors="replace")
        except OSError:
            continue
        since, _, what = text.partition(" ")
        if what and since.isdigit():
            yield f"{what}, since {time.strftime('%H:%M:%S', time.localtime(int(since)))}"


FACTOR = 10.0
"""A step may take this many times as long as the slowest of the last ones."""
REMEMBERED = 20
"""Step times that are kept."""
FIRST_STEP_SECONDS = 3600.0
"""For loading, compiling and the first step, whose duration is unknown."""


class Watchdog:
    """Given the last finished step, says whether the next one is overdue. All times are seconds of one clock.

    Args:
        least: the limit is never lower than this.
    """

    def __init__(self, least: float, now: float) -> None:
        self.least = least
        self.step: int | None = None
        self.since = now
        self.durations: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, step: int | None, now: float) -> None:
        """Record the last finished step."""
        if step is None or step == self.step:
            return
        if self.step is not None:
            self.durations.append(now - self.since)
        self.step, self.since = step, now

    @property
    def limit(self) -> float:
        """Seconds the current step may take."""
        if not self.durations:
            return max(FIRST_STEP_SECONDS, self.least)
        return max(self.least, FACTOR * max(self.durations))

    def overdue(self, now: float) -> bool:
        return now - self.since > self.limit


def step_in(heartbeat: Path) -> int | None:
    """The last finished step according to a heartbeat file; None if there is none yet."""
    return _step_in(heartbeat)


def _step_in(path: Path) -> int | None:
    try:
        step = read_json(path).get("step")
    except RunDirectoryError:
        return None
    return step if type(step) is int else None
