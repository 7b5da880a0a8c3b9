"""Handing a run to Slurm: planned, its directory made, queued once, and remembered by its job id.

`job.json`: as which job a run was submitted.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.config.load import local_paths
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.launch.checks import check_rewards
from grpo_dist.launch.open import create_or_resume
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.render.files import JOB_FILE, RENDERED, render_files
from grpo_dist.render.slurm import check_mountable
from grpo_dist.run.directory import RunDirectory, write_atomically, write_json
from grpo_dist.slurm import client
from grpo_dist.slurm.client import QueuedJob, cancel, my_jobs


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


@dataclass(frozen=True)
class PlannedRun:
    """A configuration that can run, and all files of its run directory."""

    config: RunConfig
    plan: LaunchPlan
    files: Mapping[str, str]

    @property
    def script(self) -> str:
        return self.files[JOB_FILE]

    @property
    def warnings(self) -> list[str]:
        """The plan's, and local paths that this machine lacks; the nodes may have them on disks of their own."""
        plans = list(self.plan.warnings)
        absent = [path for path in local_paths(self.config) if not os.path.exists(path)]
        untold = [path for path in absent if not any(path in told for told in plans)]
        return plans + [f"{path} is not on this machine; every node of the job needs it" for path in untold]


def planned(config: RunConfig) -> PlannedRun:
    """Everything that can be told before a job is queued; no effects.

    Raises:
        ConfigError: the configuration cannot run, or not as a job.
    """
    plan = plan_run(config)
    check_rewards(config)
    files = render_files(config, plan)
    if JOB_FILE not in files:
        raise PlanError(
            f"rollout.backend: {plan.backend} planned, and this version starts no such job",
            hint="--set rollout.backend=transformers, and leave out what only vLLM takes under rollout:",
        )
    return PlannedRun(config, plan, files)


def submit_run(run: RunDirectory, what: PlannedRun, *, resume: bool) -> str:
    """Queue the run and give its job id. If Slurm refuses, all is as it was before.

    Raises:
        RunDirectoryError: a run stands there and resume is off, it has ended, or its job is queued or running.
        PlanError: the run that stands there cannot be continued so, or its place is none for its container.
        SlurmError: there is no Slurm, or it refuses the job.
    """
    check_place(run, what)
    if run.exists():
        _check_open(run, resume=resume)
        with alone(run), _files_as_before(run):
            _check_not_queued(run)
            create_or_resume(what.config, what.plan, run, resume_command=_again(run))
            return _queue(run)
    with made(run, what.files), alone(run):
        return _queue(run)


def check_place(run: RunDirectory, what: PlannedRun) -> None:
    """
    Raises:
        PlanError: the run's container, if it has one, cannot be shown its directory, or this one.
    """
    if container := what.config.cluster.container:
        for path in (run.path, Path.cwd()):
            check_mountable(container, str(path))


def _again(run: RunDirectory) -> str:
    return shlex.join(["grpo-dist", "submit", str(run.config), "--output", str(run.path), "--resume"])


def _queue(run: RunDirectory) -> str:
    job_id = client.submit(run.path / JOB_FILE, run.path)
    with cancelled_on_failure(job_id):
        write_job(run, job_id)
    return job_id


def _check_open(run: RunDirectory, *, resume: bool) -> None:
    """Whether there is anything to submit, and resuming it is what is wanted."""
    where = shlex.quote(str(run.path))
    if run.report.exists() and run.adapter.exists():
        raise RunDirectoryError(f"{run.path}: this run has ended", hint=f"grpo-dist report {where}")
    if not resume:
        _check_not_queued(run)
        raise RunDirectoryError(
            f"{run.path}: a run stands there already",
            hint="continue it with --resume, or start another with --output DIR",
        )


def _check_not_queued(run: RunDirectory) -> None:
    job = job_of(run, my_jobs())
    if job and not job.ended:
        where = shlex.quote(str(run.path))
        raise RunDirectoryError(
            f"{run.path}: submitted already, as job {job.job_id} ({job.state})",
            hint=f"grpo-dist status {where}, or end it with grpo-dist cancel {where}",
        )


@contextmanager
def alone(run: RunDirectory) -> Iterator[None]:
    """Submit the run alone. Not `RunDirectory.locked`, which the job wants as soon as it starts.

    Raises:
        RunDirectoryError: another process is submitting it.
    """
    with open(run.path / ".submit", "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            hint = f"grpo-dist status {shlex.quote(str(run.path))}"
            raise RunDirectoryError(f"{run.path}: is being submitted just now", hint=hint) from error
        yield


@contextmanager
def made(run: RunDirectory, files: Mapping[str, str]) -> Iterator[None]:
    """The directory with these files; of one that was made for a job Slurm refuses nothing stays.

    Raises:
        RunDirectoryError: it cannot be made.
    """
    parents = [parent for parent in run.path.parents if not parent.exists()]
    run.create(files)
    try:
        yield
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        for parent in parents:
            with suppress(OSError):
                parent.rmdir()
        raise


@contextmanager
def cancelled_on_failure(job_id: str) -> Iterator[None]:
    """A job that no run directory remembers is not left in the queue."""
    try:
        yield
    except BaseException:
        cancel(job_id)
        raise


@contextmanager
def _files_as_before(run: RunDirectory) -> Iterator[None]:
    """What was rendered for a job that is refused is put back."""
    paths = [run.path / name for name in RENDERED]
    before = {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
    try:
        yield
    except BaseException:
        for path in paths:
            if path in before:
                write_atomically(path, before[path])
            else:
                path.unlink(missing_ok=True)
        raise
