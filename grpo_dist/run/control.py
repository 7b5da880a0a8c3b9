"""Asking training to save and stop, and its answer: two files every process of a run can see.

How an attempt ended: exit codes, and the file that carries them past srun, which keeps only the largest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from grpo_dist.run.directory import RunDirectory, write_atomically, write_json

STOPPED = "stopped.json"


class Why(StrEnum):
    """Why training is asked to stop; the job script writes the first two."""

    LIMIT = "limit"
    """The time limit is near, or Slurm wants the nodes for another job soon."""
    TERMINATED = "terminated"
    """Slurm is ending the job."""
    ASKED = "asked"
    """Somebody typed `grpo-dist checkpoint`."""


class Stopped(Exception):
    """Training saved after `step` because it was asked to."""

    def __init__(self, step: int) -> None:
        super().__init__(f"saved after step {step} and stopped, as asked")
        self.step = step


def request_stop(run: RunDirectory, why: Why) -> None:
    write_atomically(run.stop_request, why)


def stop_requested(run: RunDirectory) -> Why | None:
    """Why training is to stop; None when it is not."""
    try:
        return Why(run.stop_request.read_text(encoding="utf-8").strip() or Why.LIMIT)
    except FileNotFoundError:
        return None
    except ValueError:
        return Why.LIMIT


def note_stop(attempt: Path, step: int) -> None:
    """Training's answer: it saved after `step`."""
    write_json(attempt / STOPPED, {"step": step})


def stopped_at(attempt: Path) -> int | None:
    """The step training saved at when it was asked to stop in this attempt."""
    try:
        return json.loads((attempt / STOPPED).read_text(encoding="utf-8"))["step"]
    except (FileNotFoundError, ValueError):
        return None


OUTCOME = "outcome.json"
DONE, FAILED, REFUSED = 0, 1, 2
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong with the run; the same command continues it."""


@dataclass(frozen=True)
class AttemptOutcome:
    """The end of one attempt."""

    code: int
    why: str
    """One line."""
    step: int
    """Of the newest complete checkpoint; 0 when there is none."""

    def write(self, attempt: Path) -> None:
        write_json(attempt / OUTCOME, asdict(self))


def read_outcome(attempt: Path) -> AttemptOutcome | None:
    """None when the attempt ended without a word, or is still going on."""
    try:
        return AttemptOutcome(**json.loads((attempt / OUTCOME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
