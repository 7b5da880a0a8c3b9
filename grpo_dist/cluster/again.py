"""Asking Slurm to run a job once more: back in the queue, or where a site forbids that, a new job after this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

from grpo_dist.checkpoints import newest_complete, step_of
from grpo_dist.cluster.allocation import Allocation
from grpo_dist.cluster.outcome import FAILED, TRY_AGAIN, read_outcome
from grpo_dist.cluster.slurm_job import SLURM_SECONDS, shown
from grpo_dist.cluster.stop import Why, stop_requested
from grpo_dist.config import RunConfig
from grpo_dist.run_directory import RunDirectory

FRUITLESS = 3
"""Attempts in a row that failed without a step saved after which the next would be no better."""
CHAIN_VARIABLE = "GRPO_DIST_CHAINED"
"""How many jobs came before this one in a chain."""
CHAINED_OPTIONS = {
    "SLURM_JOB_PARTITION": "partition",
    "SLURM_JOB_ACCOUNT": "account",
    "SLURM_JOB_QOS": "qos",
    "SLURM_JOB_NUM_NODES": "nodes",
    "SLURM_GPUS_PER_NODE": "gpus-per-node",
    "SLURM_CPUS_PER_TASK": "cpus-per-task",
    "SLURM_JOB_NAME": "job-name",
}
"""What the job was submitted with, as it knows it → sbatch's option for the next one."""


def run_again(run: RunDirectory, allocation: Allocation, config: RunConfig) -> int:
    """Put the job back in the queue, or chain one; returns the exit code if this job goes on."""
    done = int(os.environ.get(CHAIN_VARIABLE, 0)) + allocation.restarts
    if _is_ending(run, allocation):
        return _told("Slurm is ending this job; where it was preempted or requeued Slurm runs it again by itself")
    if done >= config.cluster.max_requeues:
        return _told(f"not again: this was attempt {done + 1}, cluster.max_requeues is {config.cluster.max_requeues}")
    if (failed := fruitless(run)) >= FRUITLESS:
        return _told(f"not again: the last {failed} attempts failed without a step saved", code=FAILED)
    print(f"putting job {allocation.job_id} back in the queue", file=sys.stderr, flush=True)  # which ends us
    refused = _slurm("scontrol", "requeue", allocation.job_id)
    if refused is None:
        return TRY_AGAIN
    print(f"scontrol requeue: {refused}", file=sys.stderr)
    return _chain(run, allocation, done)


def fruitless(run: RunDirectory) -> int:
    """How many of the last attempts failed in a row with no newer checkpoint than the one before had."""
    attempts = sorted(run.logs.glob("attempt-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    checkpoint = newest_complete(run.checkpoints)
    step, count = 0 if checkpoint is None else step_of(checkpoint), 0
    for attempt in reversed(attempts):
        outcome = read_outcome(attempt)
        if outcome is None or not (attempt / run.failure.name).exists() or outcome.step != step:
            break
        count += 1
    return count


def _is_ending(run: RunDirectory, allocation: Allocation) -> bool:
    """Whether Slurm has ended this job already: cancelled, requeued, out of time; not by a preemption's grace."""
    state = shown(allocation.job_id).get("JobState")
    return stop_requested(run) is Why.TERMINATED if state is None else state != "RUNNING"


def _chain(run: RunDirectory, allocation: Allocation, done: int) -> int:
    script = run.path / "job.sh"
    options = [f"--dependency=afterany:{allocation.job_id}", f"--chdir={run.path}", *chained_options(os.environ)]
    refused = _slurm("sbatch", "--parsable", *options, str(script), environment={CHAIN_VARIABLE: str(done + 1)})
    if refused is None:
        return _told(f"a job that continues this run was submitted after job {allocation.job_id}")
    again = f"sbatch --chdir={run.path} {script}"
    return _told(f"sbatch: {refused}\nsubmit the job again by hand: {again}")


def chained_options(environ: Mapping[str, str]) -> Iterator[str]:
    """The options of this job for the next one."""
    for variable, option in CHAINED_OPTIONS.items():
        if value := environ.get(variable):
            yield f"--{option}={value}"


def _slurm(*command: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Slurm's words when it refuses; None when it did it."""
    # A job's own variables would be taken for options by sbatch.
    inherited = {name: value for name, value in os.environ.items() if not re.match("SLURM_(?!CONF)|SBATCH_", name)}
    try:
        asked = subprocess.run(
            command,
            cwd=os.environ.get("SLURM_SUBMIT_DIR"),
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=SLURM_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if asked.returncode == 0 else (asked.stderr or asked.stdout).strip()


def _told(what: str, *, code: int = TRY_AGAIN) -> int:
    print(what, file=sys.stderr)
    return code
