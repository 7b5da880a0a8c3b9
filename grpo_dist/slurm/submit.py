"""Submitting a run to Slurm: plan it, create its directory, queue it once, and record the job id in `job.json`."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.config.local_paths import local_paths
from grpo_dist.data.early import check_early
from grpo_dist.errors import PlanError, RunDirectoryError
from grpo_dist.launch.checks import check_reward_settings
from grpo_dist.launch.open import WRITTEN, asks_for_more, create_or_resume, started_files
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.checks import check_one_step
from grpo_dist.render.files import render_files
from grpo_dist.render.slurm import check_mountable
from grpo_dist.run.directory import JOB_FILE, RunDirectory, read_text, try_lock, write_atomically
from grpo_dist.slurm import client
from grpo_dist.slurm.client import cancel, my_jobs
from grpo_dist.slurm.status import job_of, write_job


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
        """Those of the plan, and local paths missing on this machine; the nodes may have them on disks of their own."""
        warnings = list(self.plan.warnings)
        absent = [path for path in local_paths(self.config) if not os.path.exists(path)]
        new = [path for path in absent if not any(path in warning for warning in warnings)]
        return warnings + [f"{path} is not on this machine; every node of the job needs it" for path in new]


def planned(config: RunConfig, *, begun: bool = False) -> PlannedRun:
    """Plan and render a run without any effects.

    Args:
        begun: as in `check_reward_settings`.

    Raises:
        ConfigError: the configuration cannot run, or not as a job.
    """
    plan = plan_run(config)
    check_one_step(config, plan.time and plan.time["seconds_per_step"])
    check_reward_settings(config, begun=begun)
    if not begun:
        check_early(config, elsewhere=True)
    files = render_files(config, plan)
    if JOB_FILE not in files:
        raise PlanError(
            f"rollout.backend: {plan.backend} planned, and this version starts no such job",
            hint="--set rollout.backend=transformers, and leave out what only vLLM takes under rollout:",
        )
    return PlannedRun(config, plan, files)


def submit_run(run: RunDirectory, what: PlannedRun, *, resume: bool) -> str:
    """Queue the run and return its job id. If Slurm refuses, all files are restored.

    Raises:
        RunDirectoryError: a run exists and `resume` is off, or it has ended, or its job is queued or running.
        PlanError: the existing run cannot be continued this way, or its container cannot mount the directory.
        SlurmError: there is no Slurm, or it refuses the job.
    """
    check_mounts(run, what)
    if run.exists():
        _check_open(run, what.config, resume=resume)
        with submit_lock(run), _files_restored_on_failure(run):
            _check_not_queued(run)
            create_or_resume(what.config, what.plan, run, resume_command=_resume_command(run), rendered=what.files)
            return _queue(run)
    with created(run, {**what.files, **started_files(what.config)}), submit_lock(run):
        return _queue(run)


def check_mounts(run: RunDirectory, what: PlannedRun) -> None:
    """Check that the run's container, if it has one, can mount the run directory and the current directory.

    Raises:
        PlanError: it cannot.
    """
    if container := what.config.cluster.container:
        for path in (run.path, Path.cwd()):
            check_mountable(container, str(path))


def _resume_command(run: RunDirectory) -> str:
    return shlex.join(["grpo-dist", "submit", str(run.config), "--output", str(run.path), "--resume"])


def _queue(run: RunDirectory) -> str:
    job_id = client.submit(run.path / JOB_FILE, run.path)
    with cancelled_on_failure(job_id):
        write_job(run, job_id, client.show_job(job_id))
    return job_id


def _check_open(run: RunDirectory, config: RunConfig, *, resume: bool) -> None:
    """Check that the existing run is not finished, or is made longer, and that it is to be resumed."""
    where = shlex.quote(str(run.path))
    ended = run.report.exists() and run.adapter.exists()
    if ended and not (resume and asks_for_more(config, run)):
        raise RunDirectoryError(f"{run.path}: this run has ended", hint=f"grpo-dist report {where}")
    if not resume:
        _check_not_queued(run)
        raise RunDirectoryError(
            f"{run.path}: there is a run already",
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
def submit_lock(run: RunDirectory) -> Iterator[None]:
    """Hold a lock while submitting. Not `RunDirectory.locked`: the job needs that lock as soon as it starts.

    Raises:
        RunDirectoryError: another process is submitting it.
    """
    with open(run.path / ".submit", "a+") as handle:
        if not try_lock(handle, fcntl.LOCK_EX):
            hint = f"grpo-dist status {shlex.quote(str(run.path))}"
            raise RunDirectoryError(f"{run.path}: is being submitted just now", hint=hint)
        yield


@contextmanager
def created(run: RunDirectory, files: Mapping[str, str]) -> Iterator[None]:
    """Create the directory with these files; if the block fails, remove it and all parents that were created.

    Raises:
        RunDirectoryError: it cannot be created.
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
    """Cancel the job if the block fails, so that no job is queued that no run directory records."""
    try:
        yield
    except BaseException:
        cancel(job_id)
        raise


@contextmanager
def _files_restored_on_failure(run: RunDirectory) -> Iterator[None]:
    """Restore the rendered files if the block fails."""
    paths = [run.path / name for name in WRITTEN]
    before = {path: read_text(path) for path in paths if path.exists()}
    try:
        yield
    except BaseException:
        for path in paths:
            if path in before:
                write_atomically(path, before[path])
            else:
                path.unlink(missing_ok=True)
        raise
