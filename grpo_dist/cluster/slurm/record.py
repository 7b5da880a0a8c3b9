"""`job.json`: as which job a run was submitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from grpo_dist.cluster.slurm.queue import QueuedJob
from grpo_dist.errors import RunDirectoryError
from grpo_dist.run_directory import RunDirectory, write_json


@dataclass(frozen=True)
class JobRecord:
    job_id: str
    """`7`, or `7_3` for task 3 of an array."""
    submitted: str
    """When, ISO 8601 in UTC."""


def write_job(run: RunDirectory, job_id: str) -> None:
    write_json(run.job, asdict(JobRecord(job_id, datetime.now(UTC).isoformat(timespec="seconds"))))


def read_job(run: RunDirectory) -> JobRecord | None:
    """The record, None when the run was never submitted.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    try:
        text = run.job.read_text(encoding="utf-8")
        return JobRecord(**json.loads(text))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunDirectoryError(f"{run.job}: damaged ({error})", hint=f"mv {run.job} {run.job}.damaged") from error


def job_of(run: RunDirectory, jobs: Sequence[QueuedJob]) -> QueuedJob | None:
    """The job of a run among those of the queue: the one it was submitted as, or one that runs in its directory.

    The second finds a job that was submitted by hand, or that a job submitted as its own successor. One that has not
    ended comes before all that have.
    """
    record, path = read_job(run), run.path.resolve()
    found = [job for job in jobs if (record and job.job_id == record.job_id) or job.directory.resolve() == path]
    return min(reversed(found), key=lambda job: job.ended, default=None)
