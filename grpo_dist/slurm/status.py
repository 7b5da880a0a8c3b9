"""The state of runs, from Slurm's queue and from the run directories."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from grpo_dist.errors import ReportError, RunDirectoryError, SlurmError
from grpo_dist.report.record import RunRecord, read_run, runs_below
from grpo_dist.run.control import FAILED as ATTEMPT_FAILED
from grpo_dist.run.control import REFUSED, AttemptOutcome, read_outcome
from grpo_dist.run.directory import RunDirectory, read_as, read_json, write_json
from grpo_dist.slurm import client
from grpo_dist.slurm.client import QueuedJob, my_jobs

State = Literal["new", "queued", "running", "stopped", "failed", "finished"]

FAILED = ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
"""Slurm's states of a job that failed; other jobs were ended by a user or by the time limit."""
RECENT_STEPS = 20


@dataclass(frozen=True)
class JobRecord:
    """The content of `job.json`: the job a run was submitted as, or runs as."""

    job_id: str
    """`7`, or `7_3` for task 3 of an array."""
    submitted: str
    """When, ISO 8601 in UTC."""
    slurm_submitted: str = ""
    """When, by Slurm's clock, ISO 8601 in UTC; empty if it did not say. It changes when a job is put back."""
    cluster: str = ""
    """Slurm's name of the cluster; empty if it did not say."""
    directory: str = ""
    """Working directory of the job."""
    output: str = ""
    """What the batch script prints goes to this file."""

    def is_of(self, job: QueuedJob) -> bool:
        """Whether this is the job. Slurm may start its numbers again, and each cluster has its own."""
        if job.job_id != self.job_id or (self.cluster and job.cluster and self.cluster != job.cluster):
            return False
        if self.directory and Path(self.directory).resolve() != job.directory.resolve():
            return False
        # A job that was put back has a later time.
        return job.restarts > 0 or not (self.slurm_submitted and job.submitted) or self.slurm_submitted == job.submitted


def write_job(
    run: RunDirectory, job_id: str, fields: Mapping[str, str], *, cluster: str = "", output: str = ""
) -> None:
    """Record the job of the run.

    Args:
        fields: those of `scontrol show job`.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # In a container the zone of the host, in which Slurm writes times, is not known.
    submitted = "" if client.out_of_reach() else client.utc(fields.get("SubmitTime", ""))
    where = output or fields.get("StdOut", "")
    record = JobRecord(job_id, submitted or now, submitted, cluster, fields.get("WorkDir", ""), where)
    write_json(run.job, asdict(record))


def read_job(run: RunDirectory) -> JobRecord | None:
    """The record; None if the run was never submitted.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    return read_as(JobRecord, run.job) if os.path.lexists(run.job) else None


def job_of(run: RunDirectory, jobs: Sequence[QueuedJob]) -> QueuedJob | None:
    """The job of a run in the queue: the one it was submitted as, or one that runs in its directory.

    The latter was submitted by hand, or as the successor of an earlier job. Jobs that have not ended take precedence.
    """
    record, path = read_job(run), run.path.resolve()
    found = [job for job in jobs if (record and record.is_of(job)) or job.directory.resolve() == path]
    return min(reversed(found), key=lambda job: job.ended, default=None)


@dataclass(frozen=True)
class RunStatus:
    """The state of one run; None is unknown."""

    run: Path
    state: State
    """`new`: neither started nor submitted; `stopped`: can be continued; `failed`: can be, once the cause is fixed."""
    job_id: str | None
    queue_state: str | None
    """Slurm's state of the job."""
    reason: str | None
    """Why it waits or ended: Slurm's reason, or the cause of the failure."""
    nodes: str | None
    """Where it runs, in Slurm's notation."""
    step: int
    max_steps: int | None
    reward: float | None
    """Mean over the completions of the last logged step."""
    tokens_per_second: float | None
    """Prompt and completion tokens over the last logged step."""
    attempts: int
    """How often it was started; 1 for a run that was never interrupted."""
    seconds_left_of_limit: int | None
    """Until Slurm's time limit."""
    seconds_left_of_steps: float | None
    """For the remaining optimizer steps, at the pace of the last ones."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "run": str(self.run)}


def queue() -> list[QueuedJob]:
    """The jobs of this user; empty on a machine without Slurm.

    Raises:
        SlurmError: Slurm does not answer.
    """
    return my_jobs() if shutil.which("squeue") else []


def status_of(path: Path, jobs: Sequence[QueuedJob]) -> RunStatus:
    """The state of a run, given the jobs of the queue.

    Raises:
        ReportError: this is no run directory, or a file in it is damaged.
        RunDirectoryError: its job.json is damaged.
    """
    run, record = RunDirectory(path), read_run(path)
    submitted, job = read_job(run), job_of(run, jobs)
    attempts = len(run.attempts())
    state = _state(run, record, job, started=bool(attempts or submitted))
    last = record.metrics[-1] if record.metrics else {}
    max_steps = record.planned("max_steps")
    return RunStatus(
        run=path,
        state=state,
        job_id=job.job_id if job else submitted.job_id if submitted else None,
        queue_state=job.state if job else None,
        reason=_reason(run, job, state),
        nodes=job.nodes or None if job else None,
        step=record.steps,
        max_steps=max_steps,
        reward=last.get("reward"),
        tokens_per_second=last.get("perf/tokens_per_second"),
        attempts=attempts,
        seconds_left_of_limit=job.seconds_left if job and not job.ended else None,
        seconds_left_of_steps=_seconds_left(record, max_steps) if state in ("queued", "running", "stopped") else None,
    )


def is_active(path: Path) -> bool:
    """Whether the run is queued or running; assumed to be while Slurm does not answer."""
    try:
        return status_of(path, queue()).state in ("queued", "running")
    except SlurmError:
        return True
    except (ReportError, RunDirectoryError):
        return not RunDirectory(path).is_idle()


def describe_state(path: Path) -> str:
    """The state and its reason; if Slurm does not answer, as far as the run directory tells."""
    try:
        found = _status_without_queue(path)
    except (ReportError, RunDirectoryError) as error:
        return f"not known: {error.message}"
    return f"{found.state}: {found.reason}" if found.reason else found.state


def _status_without_queue(path: Path) -> RunStatus:
    try:
        return status_of(path, queue())
    except SlurmError:
        return status_of(path, [])


Each = Callable[[Callable[[Path], QueuedJob | None], Iterable[Path]], list[QueuedJob | None]]


def active_jobs(path: Path, each: Each) -> list[str]:
    """The jobs of a run, or of the runs of a sweep, that are queued or running.

    Args:
        each: calls a function with each run, whether or not others are damaged.

    Raises:
        ReportError: this is neither a run nor a sweep.
        RunDirectoryError: no job of it is queued or running.
        SlurmError: Slurm does not answer.
    """
    jobs = my_jobs()
    known = each(lambda run: job_of(RunDirectory(run), jobs), runs_below(path))
    found = [job for job in known if job and not job.ended]
    if not found:
        locked = any(not RunDirectory(run).is_idle() for run in runs_below(path))
        raise RunDirectoryError(
            f"{path}: no job of it is queued or running",
            hint="it runs without one: stop it where it was started, with Ctrl-C"
            if locked
            else f"grpo-dist status {shlex.quote(str(path))}",
        )
    return [job.job_id for job in found]


def _state(run: RunDirectory, record: RunRecord, job: QueuedJob | None, *, started: bool) -> State:
    if job and not job.ended:
        return "queued" if job.state == "PENDING" else "running"
    if _ended(record):
        return "finished"
    if not run.is_idle():
        return "running"
    if (run.failure).exists() or _ended_badly(run) or (job and job.state in FAILED and _outcome(run) is None):
        return "failed"
    return "stopped" if started or job else "new"


def _outcome(run: RunDirectory) -> AttemptOutcome | None:
    attempts = run.attempts()
    return read_outcome(attempts[-1]) if attempts else None


def _ended_badly(run: RunDirectory) -> str | None:
    """Why the last attempt of a job failed or was refused; None if it was not."""
    outcome = _outcome(run)
    if outcome is None or outcome.code not in (ATTEMPT_FAILED, REFUSED):
        return None
    return " ".join(line.strip() for line in outcome.why.splitlines())


def _ended(record: RunRecord) -> bool:
    if record.stated("evaluation.enabled") is False:
        return record.adapter_saved
    return record.state == "complete"


def _reason(run: RunDirectory, job: QueuedJob | None, state: State) -> str | None:
    if state == "failed" and (cause := _recorded_cause(run) or _ended_badly(run)):
        return cause
    if job is None or job.state == "CANCELLED" or state == "finished":
        return None  # squeue still shows why the job was waiting, or went back into the queue
    return job.reason or None


def _recorded_cause(run: RunDirectory) -> str | None:
    """The failure as the run recorded it: the likely cause, else what happened."""
    try:
        failure = read_json(run.failure)
    except RunDirectoryError:
        return None
    return str(failure.get("cause") or failure.get("why") or "") or None


def _seconds_left(record: RunRecord, max_steps: int | None) -> float | None:
    """Remaining steps times the median time of the last ones; the median ignores a pause between two attempts."""
    times = [(line["step"], line["time"]) for line in record.metrics[-RECENT_STEPS:] if line.get("time") is not None]
    paces = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(times)]
    return median(paces) * (max_steps - record.steps) if paces and max_steps else None
