"""Asking Slurm to run a job again: requeue it or, where the cluster forbids that, submit a new job that follows it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.render.slurm import AGAIN_FILE
from grpo_dist.run.control import FAILED, TRY_AGAIN, Why, fruitless_attempts, read_outcome, stop_requested
from grpo_dist.run.directory import JOB_FILE, RunDirectory, write_atomically, write_json
from grpo_dist.slurm.client import CHAIN_VARIABLE, SLURM_SECONDS, Allocation, out_of_reach, show_job

MOST_FRUITLESS = 3
"""After this many attempts in a row that left no newer checkpoint, the run is over."""
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
    done = allocation.requeues
    if (reason := fruitless(run)) is not None:
        return _report(f"not again: {reason}", code=FAILED)
    if _is_ending(run, allocation):
        return _report("Slurm is ending this job; where it was preempted or requeued Slurm runs it again by itself")
    if done >= config.cluster.max_requeues:
        return _report(f"not again: this was attempt {done + 1}, cluster.max_requeues is {config.cluster.max_requeues}")
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


def fruitless(run: RunDirectory) -> str | None:
    """Why the run is over: too many of its last attempts left no newer checkpoint. None if it is not.

    Also recorded in `failure.json`, unless the last attempt has its own.
    """
    count = fruitless_attempts(run)
    if count < MOST_FRUITLESS:
        return None
    last = run.attempts()[-1]
    outcome = read_outcome(last)
    why = f"{count} attempts in a row ended without a newer checkpoint"
    ended = outcome.why.splitlines()[0] if outcome and outcome.why else "it was killed"
    if not run.failure.exists():
        record = {"node": 0, "host": os.uname().nodename, "role": "job", "code": None, "signal": None, "tail": []}
        record |= {"why": f"{why}; the last: {ended}", "cause": why, "hint": _more_time(run, ended)}
        write_json(run.failure, record | {"attempt": last.name, "time": time.time(), "others": []})
    return f"{why}; the last: {ended}\n  → {_more_time(run, ended)}"


def _more_time(run: RunDirectory, ended: str) -> str:
    where = shlex.quote(str(run.path))
    if "limit" in ended:
        return (
            f"give a job more time (--set cluster.time=…) or save more often (--set grpo.save_steps=1); "
            f"what it was at: grpo-dist logs {where}"
        )
    return f"what it was at when it ended: grpo-dist logs {where}; once that is mended, submit it again"


def _is_ending(run: RunDirectory, allocation: Allocation) -> bool:
    """Whether Slurm has ended this job already (cancelled, requeued, out of time); not in a preemption's grace time."""
    state = show_job(allocation.job_id).get("JobState")
    return stop_requested(run) is Why.TERMINATED if state is None else state != "RUNNING"


def submission(run: RunDirectory) -> list[str]:
    """The command that submits another job of this run."""
    return ["sbatch", f"--chdir={run.path}", str(run.path / JOB_FILE)]


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
