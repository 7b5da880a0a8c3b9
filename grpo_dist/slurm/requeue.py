"""Asking Slurm to run a job again: requeue it or, where the cluster forbids that, submit a new job that follows it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.render.slurm import AGAIN_FILE
from grpo_dist.run.checkpoints import newest_complete, step_of
from grpo_dist.run.control import FAILED, TRY_AGAIN, Why, read_outcome, stop_requested
from grpo_dist.run.directory import RunDirectory, write_atomically
from grpo_dist.slurm.client import SLURM_SECONDS, Allocation, out_of_reach, shown

MOST_WITHOUT_PROGRESS = 3
"""After this many failed attempts in a row without a saved step, the job is not requeued."""
CHAIN_VARIABLE = "GRPO_DIST_CHAINED"
"""How many jobs of the chain came before this one."""
CHAINED_OPTIONS = {
    "SLURM_JOB_PARTITION": "partition",
    "SLURM_JOB_ACCOUNT": "account",
    "SLURM_JOB_QOS": "qos",
    "SLURM_JOB_NUM_NODES": "nodes",
    "SLURM_GPUS_PER_NODE": "gpus-per-node",
    "SLURM_CPUS_PER_TASK": "cpus-per-task",
    "SLURM_JOB_NAME": "job-name",
}
"""Slurm's variable with an option of this job → the sbatch option for the next one."""


def requeue(run: RunDirectory, attempt: Path, allocation: Allocation, config: RunConfig) -> int:
    """Requeue the job or submit a successor; returns the exit code of this job, unless Slurm ends it first."""
    done = int(os.environ.get(CHAIN_VARIABLE, 0)) + allocation.restarts
    if _is_ending(run, allocation):
        return _report("Slurm is ending this job; where it was preempted or requeued Slurm runs it again by itself")
    if done >= config.cluster.max_requeues:
        return _report(f"not again: this was attempt {done + 1}, cluster.max_requeues is {config.cluster.max_requeues}")
    if (failed := attempts_without_progress(run)) >= MOST_WITHOUT_PROGRESS:
        return _report(f"not again: the last {failed} attempts failed without a step saved", code=FAILED)
    commands = {
        f"putting job {allocation.job_id} back in the queue": ["scontrol", "requeue", allocation.job_id],
        f"submitting a job that continues this run after job {allocation.job_id}": _successor(run, allocation, done),
    }
    by_hand = f"submit the job again by hand: {shlex.join(submission(run))}"
    if out_of_reach():
        write_atomically(attempt / AGAIN_FILE, fallback_script(commands, by_hand))
        return TRY_AGAIN
    for what, command in commands.items():
        print(what, file=sys.stderr, flush=True)  # the first command may end this job
        if (refused := _try_command(command)) is None:
            return TRY_AGAIN
        print(refused, file=sys.stderr)
    return _report(by_hand)


def fallback_script(commands: Mapping[str, Sequence[str]], by_hand: str) -> str:
    """Shell code that tries these commands (message → command) until one succeeds."""
    tried = [f"echo {shlex.quote(what)} >&2\n{shlex.join(command)} && exit" for what, command in commands.items()]
    return "\n".join([*tried, f"echo {shlex.quote(by_hand)} >&2", ""])


def attempts_without_progress(run: RunDirectory) -> int:
    """How many of the last attempts failed in a row without a newer checkpoint."""
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
    """Whether Slurm has ended this job already (cancelled, requeued, out of time); not in a preemption's grace time."""
    state = shown(allocation.job_id).get("JobState")
    return stop_requested(run) is Why.TERMINATED if state is None else state != "RUNNING"


def submission(run: RunDirectory) -> list[str]:
    """The command that submits another job of this run."""
    return ["sbatch", f"--chdir={run.path}", str(run.path / "job.sh")]


def _successor(run: RunDirectory, allocation: Allocation, done: int) -> list[str]:
    """The command that submits the next job of the chain."""
    sbatch, *rest = submission(run)
    options = [f"--dependency=afterany:{allocation.job_id}", *chained_options(os.environ)]
    # sbatch would take this job's variables as options.
    own = [f"--unset={name}" for name in sorted(os.environ) if re.match("SLURM_(?!CONF)|SBATCH_", name)]
    where = [f"--chdir={os.environ['SLURM_SUBMIT_DIR']}"] if "SLURM_SUBMIT_DIR" in os.environ else []
    return ["env", *where, *own, f"{CHAIN_VARIABLE}={done + 1}", sbatch, *options, *rest]


def chained_options(environ: Mapping[str, str]) -> Iterator[str]:
    """The options of this job, for the next one."""
    for variable, option in CHAINED_OPTIONS.items():
        if value := environ.get(variable):
            yield f"--{option}={value}"


def _try_command(command: Sequence[str]) -> str | None:
    """Run the command; returns Slurm's message if it refuses, else None."""
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=SLURM_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if asked.returncode == 0 else (asked.stderr or asked.stdout).strip()


def _report(what: str, *, code: int = TRY_AGAIN) -> int:
    print(what, file=sys.stderr)
    return code
