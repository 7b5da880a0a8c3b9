"""Where runs stand: what the queue says, and what their directories say."""

from __future__ import annotations

import fcntl
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from grpo_dist.errors import RunDirectoryError, SlurmError
from grpo_dist.report.record import RunRecord, read_run, runs_below
from grpo_dist.run.directory import RunDirectory
from grpo_dist.slurm.client import QueuedJob, my_jobs
from grpo_dist.slurm.submit import job_of, read_job

State = Literal["new", "queued", "running", "stopped", "failed", "finished"]

FAILED = ("FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
"""Slurm's words for a job that ended badly; the others were ended by somebody, or by the time limit."""
FAILURE_FILE = "failure.json"
"""In the run directory: why the last attempt failed, as `cause` (the likely one) and `why`."""
RECENT_STEPS = 20


@dataclass(frozen=True)
class RunStatus:
    """One run. What is not known is None."""

    run: Path
    state: State
    """`new`: neither started nor submitted; `stopped`: can be continued; `failed`: so can it, with its cause mended."""
    job_id: str | None
    queue_state: str | None
    """Slurm's word."""
    reason: str | None
    """Why it waits or ended, in Slurm's word or in the first line of the run's own."""
    nodes: str | None
    """Where it runs, as Slurm writes lists of nodes."""
    step: int
    max_steps: int | None
    reward: float | None
    """Mean over the completions of the last logged step."""
    tokens_per_second: float | None
    """Prompt and completion tokens over the last logged step."""
    attempts: int
    """Times it was started; 1 for a run that was never interrupted."""
    seconds_left_of_limit: int | None
    """Until Slurm's time limit."""
    seconds_left_of_steps: float | None
    """Of optimizer steps, at the pace of the last ones."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "run": str(self.run)}


def queue() -> list[QueuedJob]:
    """The jobs of this user; none on a machine without Slurm.

    Raises:
        SlurmError: Slurm is there and does not answer.
    """
    return my_jobs() if shutil.which("squeue") else []


def status_of(path: Path, jobs: Sequence[QueuedJob]) -> RunStatus:
    """Where a run stands, given the jobs of the queue.

    Raises:
        ReportError: it is no run directory, or a file in it is damaged.
        RunDirectoryError: its job.json is damaged.
    """
    run, record = RunDirectory(path), read_run(path)
    submitted, job = read_job(run), job_of(run, jobs)
    attempts = len(list(run.logs.glob("attempt-*")))
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


def going_on(path: Path) -> bool:
    """Whether the run is queued or running; also said while Slurm does not answer, for no job ends of that."""
    try:
        return status_of(path, queue()).state in ("queued", "running")
    except SlurmError:
        return True


def state_in_words(path: Path) -> str:
    """The state, and why it is that; as far as it is known without Slurm where Slurm does not answer."""
    try:
        found = status_of(path, queue())
    except SlurmError:
        found = status_of(path, [])
    return f"{found.state}: {found.reason}" if found.reason else found.state


def active_jobs(path: Path) -> list[str]:
    """The jobs of a run, or of the runs of a sweep, that are queued or running.

    Raises:
        ReportError: neither is there.
        RunDirectoryError: there is no such job.
        SlurmError: Slurm does not answer.
    """
    jobs = my_jobs()
    found = [job for run in runs_below(path) if (job := job_of(RunDirectory(run), jobs)) and not job.ended]
    if not found:
        held = any(_held(RunDirectory(run)) for run in runs_below(path))
        raise RunDirectoryError(
            f"{path}: no job of it is queued or running",
            hint="it runs without one: stop it where it was started, with Ctrl-C"
            if held
            else f"grpo-dist status {shlex.quote(str(path))}",
        )
    return [job.job_id for job in found]


def _state(run: RunDirectory, record: RunRecord, job: QueuedJob | None, *, started: bool) -> State:
    if job and not job.ended:
        return "queued" if job.state == "PENDING" else "running"
    if _ended(record):
        return "finished"
    if _held(run):
        return "running"
    if (run.path / FAILURE_FILE).exists() or (job and job.state in FAILED):
        return "failed"
    return "stopped" if started or job else "new"


def _ended(record: RunRecord) -> bool:
    if record.stated("evaluation.enabled") is False:
        return record.adapter_saved
    return record.state == "complete"


def _held(run: RunDirectory) -> bool:
    """Whether a process holds the run's lock. The look takes it for an instant, shared."""
    try:
        with open(run.path / ".lock") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _reason(run: RunDirectory, job: QueuedJob | None, state: State) -> str | None:
    if state == "failed" and (told := _told(run)):
        return told
    if job is None or job.state == "CANCELLED":
        return None  # squeue goes on to say why it had waited
    return job.reason or None


def _told(run: RunDirectory) -> str | None:
    """What the run wrote about its failure: the likely cause, else what happened."""
    try:
        failure = json.loads((run.path / FAILURE_FILE).read_text(encoding="utf-8"))
        return failure.get("cause") or failure.get("why")
    except (OSError, ValueError, AttributeError):
        return None


def _seconds_left(record: RunRecord, max_steps: int | None) -> float | None:
    """Steps left times the median time of the last ones; a pause between two attempts is one of many and drops out."""
    times = [(line["step"], line["time"]) for line in record.metrics[-RECENT_STEPS:] if line.get("time") is not None]
    paces = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(times)]
    return median(paces) * (max_steps - record.steps) if paces and max_steps else None
