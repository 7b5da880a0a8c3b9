"""The first and last step of a job's batch script: `python -m grpo_dist.slurm.job open …` and `… close …`.

open CONFIG [--set A.B=V]… [--output DIR]   plan for the allocated nodes and GPUs, and create the run directory or
                                            resume the run in it; prints its path and the attempt's log directory
close RUN ATTEMPT CODE                      decide what follows the attempt: done, failed, or the job runs again;
                                            CODE is the exit code of srun
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from grpo_dist.config import RunConfig, load_config
from grpo_dist.errors import GrpoDistError, LaunchError, PlanError, RunDirectoryError
from grpo_dist.launch.checks import check_packages, check_reward_settings
from grpo_dist.launch.open import create_or_resume
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.checks import check_one_step
from grpo_dist.procs.tree import ignore_sigterm_until_exec
from grpo_dist.run.checkpoints import newest_step
from grpo_dist.run.control import (
    DONE,
    FAILED,
    MEMORY_CAUSE,
    OUT_OF_MEMORY,
    REFUSED,
    STARTED,
    TRY_AGAIN,
    AttemptOutcome,
    AttemptStart,
    read_outcome,
    read_start,
    stop_requested,
)
from grpo_dist.run.directory import PLAN_FILE, RunDirectory, read_json, write_json
from grpo_dist.slurm.client import (
    Allocation,
    memory_of,
    out_of_reach,
    parse_seconds,
    seconds_left,
    show_components,
    show_job,
)
from grpo_dist.slurm.requeue import fruitless, options_of, requeue, submission
from grpo_dist.slurm.status import write_job

LOCK_SECONDS = 120.0
"""A file server may keep the lock of a node that lost power for a while."""
RETRY_SECONDS = 2.0
CLAIM_SECONDS = 300.0
"""For a job whose state is not known, from the opening of an attempt until its first node holds the lock."""
PRINTED_BYTES = 1 << 20
SRUN_REFUSES = re.compile(
    r"(?<=srun: )(error: (Unable to create step|Unable to confirm allocation|Step requested|Invalid|Memory required|"
    r"More processors|Requested).*|fatal: .*|unrecognized option.*|invalid option.*)"
)
"""srun's own words when it starts nothing."""
SRUN_PASSING = r"[Cc]ompleting|[Tt]imed out|contact slurm controller|[Cc]ommunication|Zero Bytes|temporarily"
"""In them: what may be otherwise the next time."""
ALIVE = ("RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")
"""States of a job whose processes may be running."""


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
    options = parser.parse_args(arguments)
    try:
        if options.command == "close":
            return close_attempt(RunDirectory(options.run), options.attempt, options.code)
        allocation = this_allocation()
        run, attempt = open_attempt(options.config, options.overrides, options.output, allocation)
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
    """Create the run directory or resume the run in it; returns it and the new attempt's log directory.

    Raises:
        ConfigError: the configuration cannot run on the allocation; nothing is created.
        LaunchError: training is not installed here.
        RunDirectoryError: another job has this run, or the directory holds a run of another configuration.
    """
    components = show_components(allocation.job_id)
    fields = next(iter(components), {})
    path = output or Path(allocation.run or f"runs/{Path(config).stem}-{allocation.job_id}")
    run = RunDirectory(path.absolute())
    if allocation.chained and not run.exists():
        raise RunDirectoryError(
            f"{run.path}: the run this job continues is gone", hint="put it back, then submit again"
        )
    if allocation.requeues and run.exists():
        config, overrides = str(run.config), ()  # what was submitted, whatever has become of its file
    _wait_for_own_lock(run, allocation)
    _check_claim(run, allocation)
    with _refusal_recorded(run, allocation, components):
        run_config, plan = plan_for(config, overrides, allocation)
        _check_time(run_config, plan, fields)
        check_reward_settings(run_config, begun=run.warm_start.exists())
        check_packages(run_config.tracking)
        create_or_resume(run_config, plan, run, resume_command=shlex.join(submission(run)))
    with run.locked(_owner(allocation)):
        _check_claim(run, allocation)
        if allocation.requeues and (reason := fruitless(run)) is not None:
            raise LaunchError(f"not again: {reason}")
        # Left by the attempt before. Slurm's signal to this attempt cannot be among them: the batch script only
        # remembers one that comes while we run, and writes it down when it has our output.
        for stale in (run.stop_request, run.failure, run.heartbeat):
            stale.unlink(missing_ok=True)
        attempt = run.new_attempt()
        _record_start(run, attempt, allocation, components)
        (attempt / PLAN_FILE).write_text(plan.to_json(), encoding="utf-8")
    idle = [] if run_config.cluster.gpus_per_node else _idle_gpus(allocation)
    for warning in [*plan.warnings, *idle]:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"run directory: {run.path}\nlogs: {attempt}", file=sys.stderr)
    return run, attempt


def _idle_gpus(allocation: Allocation) -> list[str]:
    if not allocation.gpus_per_node:
        return []
    return [
        f"the job has {allocation.gpus_per_node} GPUs per node, and the configuration trains on CPUs "
        "(cluster.gpus_per_node: 0): leave that out, or ask for no GPUs"
    ]


def this_allocation() -> Allocation:
    """What Slurm allocated to this job, asked of Slurm as well.

    Raises:
        LaunchError: this is no Slurm job, or a variable is odd.
    """
    return Allocation.from_environ(os.environ, show_job(os.environ.get("SLURM_JOB_ID", "")))


def _record_start(
    run: RunDirectory, attempt: Path, allocation: Allocation, components: Sequence[Mapping[str, str]]
) -> None:
    """Record what the attempt began with; `components`: the fields Slurm shows of each component of the job."""
    fields = next(iter(components), {})
    left = seconds_left(fields)
    AttemptStart(
        allocation.job_id,
        allocation.restarts,
        allocation.requeues,
        step=newest_step(run.checkpoints),
        ends=None if left is None else time.time() + left,
        options=[options_of(component) for component in components],  # Slurm no longer shows all of a job that ends
    ).write(attempt)
    write_job(run, allocation.name, fields, cluster=allocation.cluster, output=_own_output())


@contextmanager
def _refusal_recorded(
    run: RunDirectory, allocation: Allocation, components: Sequence[Mapping[str, str]]
) -> Iterator[None]:
    """Leave an attempt with the reason for `status` and `logs` when a run that exists is refused.

    Not when another job or process has the run: that one is not this run's.
    """
    try:
        yield
    except GrpoDistError as error:
        if run.exists() and run.is_idle():
            with suppress(OSError, GrpoDistError), run.locked(_owner(allocation)):
                attempt = run.new_attempt()
                _record_start(run, attempt, allocation, components)
                AttemptOutcome(error.exit_code, str(error), newest_step(run.checkpoints)).write(attempt)
        raise


def plan_for(config: str, overrides: Sequence[str], allocation: Allocation) -> tuple[RunConfig, LaunchPlan]:
    """The configuration and plan for the allocation; `--set` takes precedence over it.

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
    planned = load_config(config, [*machines, *overrides])
    if planned.cluster.nodes != allocation.nodes:
        raise PlanError(
            f"cluster.nodes: {planned.cluster.nodes} stated, {allocation.nodes} allocated",
            hint=f"leave it out of --set, or sbatch --nodes={planned.cluster.nodes}",
        )
    if planned.cluster.gpus_per_node > allocation.gpus_per_node:
        raise PlanError(
            f"cluster.gpus_per_node: {planned.cluster.gpus_per_node} stated, {allocation.gpus_per_node} allocated",
            hint=f"leave it out of --set, or sbatch --gpus-per-node={planned.cluster.gpus_per_node}",
        )
    return planned, plan_run(planned)


def close_attempt(run: RunDirectory, attempt: Path, code: int) -> int:
    """Report how the attempt ended, and requeue the job if it may be tried again. Returns the job's exit code.

    `requeue` comes last, and nothing may follow it: Slurm can end this job, and us in it, before it returns.
    """
    if not run.exists():
        print(f"{run.path}: the run directory is gone; put it back, then submit again", file=sys.stderr)
        return REFUSED
    outcome = read_outcome(attempt)
    if outcome is None:
        try:
            outcome = _missing_outcome(run, attempt, code)
        except OSError as error:
            print(f"{attempt} cannot be written: {error.strerror}; fix that, then submit again", file=sys.stderr)
            return FAILED
        print(outcome.why, file=sys.stderr)
    outcome = _explained(run, attempt, outcome)
    if outcome.code == TRY_AGAIN:
        return requeue(run, attempt, this_allocation(), load_config(run.config))
    if outcome.code == DONE:
        print(f"report: {run.report}", file=sys.stderr)
    return outcome.code


def _missing_outcome(run: RunDirectory, attempt: Path, code: int) -> AttemptOutcome:
    """Write the outcome in place of the coordinator, which wrote none.

    That is no failure of a job that is being ended: Slurm starts no step in it, and kills what takes too long.
    """
    if stop_requested(run) is not None:
        why = f"ended by Slurm: the first node had no time to say more (srun's exit code: {code})"
        outcome = AttemptOutcome(TRY_AGAIN, why, newest_step(run.checkpoints))
    else:
        why = f"the supervisor of the first node ended without a message (srun's exit code: {code})"
        outcome = AttemptOutcome(TRY_AGAIN if code else FAILED, why, newest_step(run.checkpoints))
        for path in (run.failure, attempt / run.failure.name):
            write_json(path, {"role": "node", "node": 0, "why": why, "cause": None, "hint": None})
    outcome.write(attempt)
    return outcome


def _explained(run: RunDirectory, attempt: Path, outcome: AttemptOutcome) -> AttemptOutcome:
    """Correct the outcome of an attempt that is to be tried again by what Slurm itself said of it.

    What was killed for its memory, and what srun refuses, would end the same way again.
    """
    recorded = attempt / run.failure.name
    if outcome.code != TRY_AGAIN or not recorded.exists() or stop_requested(run) is not None:
        return outcome
    failure = read_json(recorded)
    job_id = os.environ.get("SLURM_JOB_ID", "")
    said = "\n".join(re.findall(r"^(?:slurmstepd|srun)\b.*", _printed_in(attempt), re.MULTILINE))
    kills, limit = memory_of(job_id)
    if failure.get("cause") is None and (kills or re.search(OUT_OF_MEMORY, said)):
        why, hint = MEMORY_CAUSE, _more_memory(show_job(job_id), limit)
    elif failure["role"] == "node" and (refused := SRUN_REFUSES.search(said)) and not re.search(SRUN_PASSING, said):
        why, hint = (
            f"srun refuses: {refused[0]}",
            "fix the options of the job: cluster.sbatch, or what sbatch was given",
        )
    else:
        return outcome
    for path in (run.failure, recorded):
        write_json(path, failure | {"cause": why, "hint": hint})
    corrected = AttemptOutcome(FAILED, f"{outcome.why}\n  likely cause: {why}\n  → {hint}", outcome.step)
    corrected.write(attempt)
    print(f"  likely cause: {why}\n  → {hint}", file=sys.stderr)
    return corrected


def _printed_in(attempt: Path) -> str:
    """What this job has printed since the attempt was opened, as far as it is known where that goes."""
    output = _own_output()
    if not output:
        return ""
    with open(output, "rb") as printed:
        printed.seek(max(0, os.path.getsize(output) - PRINTED_BYTES))
        _, opened, said = printed.read().decode(errors="replace").rpartition(f"logs: {attempt}\n")
    return said if opened else ""


def _more_memory(fields: Mapping[str, str], limit: int | None) -> str:
    asked = fields.get("MinMemoryNode") or fields.get("MinMemoryCPU")
    per = "node" if "MinMemoryNode" in fields else "CPU"
    had = f"the job asked for {'all memory of a node' if asked == '0' else f'{asked} per {per}'}; " if asked else ""
    had += f"its limit was {limit / 2**30:.1f} GiB; " if limit else ""
    if asked == "0":
        return f"{had}choose nodes with more memory, or fewer processes or rewards on each"
    return f"{had}ask for more: --set 'cluster.sbatch=[--mem=0]' is all of a node's memory"


def _check_time(config: RunConfig, plan: LaunchPlan, fields: Mapping[str, str]) -> None:
    """Refuse a job whose time limit does not allow one step and its checkpoint."""
    limit = parse_seconds(fields.get("TimeLimit", ""))
    if limit is not None:
        check_one_step(config, plan.time and plan.time["seconds_per_step"], limit)


def _check_claim(run: RunDirectory, allocation: Allocation) -> None:
    """Refuse a run that another job has opened and not yet closed: its first node takes the lock only later.

    Raises:
        RunDirectoryError: another job has it.
    """
    attempts = run.attempts()
    start = read_start(attempts[-1]) if attempts else None
    if start is None or start.job_id == allocation.job_id or read_outcome(attempts[-1]) is not None:
        return
    fields = {} if out_of_reach() else show_job(start.job_id)
    opened = (attempts[-1] / STARTED).stat().st_mtime
    going_on = time.time() - opened < CLAIM_SECONDS
    if fields:
        going_on = fields.get("JobState") in ALIVE and fields.get("Restarts", "0") == str(start.restarts)
    if going_on:
        raise RunDirectoryError(
            f"{run.path}: this run is still going on (job {start.job_id})", hint="wait for it, or stop it first"
        )


def _own_output() -> str:
    """The file this job prints to; empty if it is none, as in a container's step."""
    try:
        path = os.readlink("/proc/self/fd/2")
    except OSError:
        return ""
    return path if os.path.isfile(path) else ""


def _owner(allocation: Allocation) -> str:
    return f"job {allocation.job_id}"


def _wait_for_own_lock(run: RunDirectory, allocation: Allocation) -> None:
    """A requeued job may start before the lock of its last attempt is released; wait for that."""
    until = time.monotonic() + LOCK_SECONDS
    while run.exists() and run.owner() == _owner(allocation) and time.monotonic() < until:
        try:
            with run.locked(_owner(allocation)):
                return
        except RunDirectoryError:
            time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    ignore_sigterm_until_exec()  # the batch script does so already, unless the container is a step of its own
    sys.exit(main(sys.argv[1:]))
