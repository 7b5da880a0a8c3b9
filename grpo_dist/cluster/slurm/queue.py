"""squeue and scancel: the jobs of this user."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.cluster.slurm.program import call

FIELDS = ("%i", "%T", "%r", "%L", "%N", "%Z")
"""Job id, state, why it waits, time left of its limit, nodes, working directory: the last may hold any character."""

ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)
"""States of a job that is over; Slurm shows it for MinJobAge seconds more, 300 where nobody said otherwise."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or one task of an array, as squeue shows it."""

    job_id: str
    """`7`, or `7_3` for task 3 of an array."""
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, …"""
    reason: str
    """Slurm's word for why it waits, or ended as it did; empty if there is none."""
    seconds_left: int | None
    """Of its time limit; None when it has not started or has no limit."""
    nodes: str
    """As Slurm writes lists of nodes: `gpu[1-4,7]`."""
    directory: Path
    """Where it runs."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def my_jobs() -> list[QueuedJob]:
    """All jobs of this user that are queued, running, or have ended just now; the newest last.

    Raises:
        SlurmError: there is no squeue, or it does not answer.
    """
    answer, _ = call("squeue", "--me", "--array", "--states=all", "--noheader", f"--format={'|'.join(FIELDS)}")
    jobs = [_job(line) for line in answer.splitlines() if line.count("|") >= len(FIELDS) - 1]
    return sorted(jobs, key=lambda job: [int(number) for number in re.findall(r"\d+", job.job_id)])


def cancel(job_id: str) -> None:
    """End a job, or all tasks of an array.

    Raises:
        SlurmError: there is no scancel, or it refuses.
    """
    call("scancel", job_id)


def seconds(text: str) -> int | None:
    """Slurm's `days-hours:minutes:seconds`; None for UNLIMITED, NOT_SET, INVALID."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _job(line: str) -> QueuedJob:
    job_id, state, reason, left, nodes, directory = line.split("|", len(FIELDS) - 1)
    return QueuedJob(
        # The parts of a heterogeneous job are 7+0, 7+1, …
        job_id=job_id.partition("+")[0],
        state=state,
        reason="" if reason == "None" else reason,
        seconds_left=None if state == "PENDING" else seconds(left),
        nodes=nodes,
        directory=Path(directory),
    )
