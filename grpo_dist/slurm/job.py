"""What a job's batch script asks for: `python -m grpo_dist.slurm.job open …` first, `… close …` last.

open CONFIG [--set A.B=V]… [--output DIR]   plan for the nodes and GPUs that were allocated, make the run directory
                                            or take up the run in it; prints its path and the attempt's
close RUN ATTEMPT CODE                      decide what the attempt's end means: be done, fail, or ask Slurm to run
                                            the job again; CODE is srun's
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from grpo_dist.config import RunConfig, load_config
from grpo_dist.errors import GrpoDistError, PlanError, RunDirectoryError
from grpo_dist.launch.checks import check_packages, check_rewards
from grpo_dist.launch.open import create_or_resume
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.procs.parent_death import ignore_sigterm_until_exec
from grpo_dist.run.control import DONE, FAILED, TRY_AGAIN, AttemptOutcome, read_outcome, stop_requested
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.slurm.client import Allocation, shown, time_seconds
from grpo_dist.slurm.requeue import requeue, submission

LOCK_SECONDS = 120.0
"""A file server keeps the lock of a node that lost power for a while."""
RETRY_SECONDS = 2.0
JOB_FILE = "allocation.json"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m grpo_dist.slurm.job", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    opening = commands.add_parser("open")
    opening.add_argument("config")
    opening.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=V")
    opening.add_argument("--output", type=Path, metavar="DIR")
    closing = commands.add_parser("close")
    closing.add_argument("run", type=Path)
    closing.add_argument("attempt", type=Path)
    closing.add_argument("code", type=int)
    stated = parser.parse_args(arguments)
    try:
        if stated.command == "close":
            return close_attempt(RunDirectory(stated.run), stated.attempt, stated.code)
        allocation = Allocation.from_environ(os.environ)
        run, attempt = open_attempt(stated.config, stated.overrides, stated.output, allocation)
    except GrpoDistError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, no right to write
        print(f"Error: {error}", file=sys.stderr)
        return FAILED
    print(run.path, attempt, sep="\n")
    return DONE


def open_attempt(
    config: str, overrides: Sequence[str], output: Path | None, allocation: Allocation
) -> tuple[RunDirectory, Path]:
    """The run directory, made or taken up, and the new attempt's log directory.

    Raises:
        ConfigError: the configuration cannot run on what was allocated; nothing is made.
        LaunchError: training is not installed here.
        RunDirectoryError: another job has this run, or another configuration's run stands there.
    """
    stated, plan = plan_for(config, overrides, allocation)
    _check_time(stated, allocation)
    check_rewards(stated)
    check_packages(stated.tracking)
    path = output or Path("runs") / f"{Path(config).stem}-{allocation.job_id}"
    run = RunDirectory(path.absolute())
    _wait_for_own_lock(run, allocation)
    create_or_resume(stated, plan, run, resume_command=shlex.join(submission(run)))
    with run.locked(_owner(allocation)):
        for stale in (run.stop_request, run.failure, run.heartbeat):
            stale.unlink(missing_ok=True)
        attempt = run.new_attempt()
        (attempt / "plan.json").write_text(plan.to_json(), encoding="utf-8")
        write_json(attempt / JOB_FILE, {"job_id": allocation.job_id, "restarts": allocation.restarts})
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"run directory: {run.path}\nlogs: {attempt}", file=sys.stderr)
    return run, attempt


def plan_for(config: str, overrides: Sequence[str], allocation: Allocation) -> tuple[RunConfig, LaunchPlan]:
    """The configuration and plan for the machines there are; `--set` still counts over what was allocated.

    Raises:
        ConfigError: they contradict each other, or cannot run.
    """
    on_cpu = load_config(config, overrides).cluster.gpus_per_node == 0
    if not on_cpu and not allocation.gpus_per_node:
        raise PlanError(
            "the job has no GPUs", hint="sbatch --gpus-per-node=8 …, or --set cluster.gpus_per_node=0 for CPUs"
        )
    machines = [f"cluster.nodes={allocation.nodes}"]
    if not on_cpu:
        machines.append(f"cluster.gpus_per_node={allocation.gpus_per_node}")
    stated = load_config(config, [*machines, *overrides])
    if stated.cluster.nodes != allocation.nodes:
        raise PlanError(
            f"cluster.nodes: {stated.cluster.nodes} stated, {allocation.nodes} allocated",
            hint=f"leave it out of --set, or sbatch --nodes={stated.cluster.nodes}",
        )
    if stated.cluster.gpus_per_node > allocation.gpus_per_node:
        raise PlanError(
            f"cluster.gpus_per_node: {stated.cluster.gpus_per_node} stated, {allocation.gpus_per_node} allocated",
            hint=f"leave it out of --set, or sbatch --gpus-per-node={stated.cluster.gpus_per_node}",
        )
    return stated, plan_run(stated)


def close_attempt(run: RunDirectory, attempt: Path, code: int) -> int:
    """Say how the attempt ended; where it may be tried again, see to it that it is. Returns the job's exit code."""
    outcome = read_outcome(attempt)
    if outcome is None:
        try:
            outcome = _without_a_word(run, attempt, code)
        except OSError as error:
            print(f"{attempt} cannot be written: {error.strerror}; mend that, then submit again", file=sys.stderr)
            return FAILED
        print(outcome.why, file=sys.stderr)
    if outcome.code == TRY_AGAIN:
        return requeue(run, attempt, Allocation.from_environ(os.environ), load_config(run.config))
    if outcome.code == DONE:
        print(f"report: {run.report}", file=sys.stderr)
    return outcome.code


def _without_a_word(run: RunDirectory, attempt: Path, code: int) -> AttemptOutcome:
    """The outcome, written for the supervisor of the first node, which did not; its end is no failure of a job that is
    being ended: Slurm starts no step in one, and kills what takes too long."""
    if stop_requested(run) is not None:
        outcome = AttemptOutcome(
            TRY_AGAIN, f"ended by Slurm: the first node had no time to say more (srun's exit code: {code})", 0
        )
    else:
        why = f"the supervisor of the first node ended without a word (srun's exit code: {code})"
        outcome = AttemptOutcome(TRY_AGAIN if code else FAILED, why, 0)
        write_json(attempt / run.failure.name, {"role": "node", "node": 0, "why": why})
    outcome.write(attempt)
    return outcome


def _check_time(config: RunConfig, allocation: Allocation) -> None:
    """Slurm sends the signal at once to a job that has no more time than that."""
    limit = time_seconds(shown(allocation.job_id).get("TimeLimit", ""))
    ahead = config.cluster.signal_seconds
    if limit is not None and limit <= ahead:
        raise PlanError(
            f"the job has {limit} s, and is to save {ahead} s before their end (cluster.signal_seconds)",
            hint=f"sbatch --time={2 * ahead // 60} …, or render the script with "
            f"--set cluster.signal_seconds={max(60, limit // 2)}",
        )


def _owner(allocation: Allocation) -> str:
    return f"job {allocation.job_id}"


def _wait_for_own_lock(run: RunDirectory, allocation: Allocation) -> None:
    """A job that was put back in the queue may come before the lock of its last attempt is gone."""
    until = time.monotonic() + LOCK_SECONDS
    while run.exists() and run.owner() == _owner(allocation) and time.monotonic() < until:
        try:
            with run.locked(_owner(allocation)):
                return
        except RunDirectoryError:
            time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    ignore_sigterm_until_exec()  # by the batch script already, unless a container is a step of its own
    sys.exit(main(sys.argv[1:]))
