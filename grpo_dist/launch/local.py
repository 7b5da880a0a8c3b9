"""A whole run on this machine: prepare, train, compare, report. Each stage is a process, and each is done once.

`run_alongside` runs one process on a finished run, such as a comparison or an export.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.data.early import check_early
from grpo_dist.errors import OF_NO_USE, LaunchError, PlanError, RolloutsGone, RunDirectoryError
from grpo_dist.inference.registry import is_served
from grpo_dist.launch.checks import check_backend, check_packages, check_reward_settings
from grpo_dist.launch.forks import Forks, can_fork
from grpo_dist.launch.open import check_as_started, create_or_resume
from grpo_dist.launch.process import Interrupted, ProcessOutcome, Started, ended_by, run_process, serving, start
from grpo_dist.launch.stages import QUIET, Stage, allocator_environment, device_environment, stages
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.plan.launch import read_plan
from grpo_dist.procs.tree import descendants, dump_stacks
from grpo_dist.progress import Terminal
from grpo_dist.run.control import Stopped, Watchdog, running_rewards, step_in, stopped_at
from grpo_dist.run.directory import ATTEMPT_VARIABLE, RunDirectory
from grpo_dist.run.metrics import tracker_environment

LOG_TAIL_LINES = 15
DUMP_SECONDS = 3.0
"""For the ranks to write their stacks."""
LOOK_INTO_REWARD = "look for os._exit, a crash, or a wait without a time-out in that reward"


def open_run(config: RunConfig, path: Path, *, resume: bool) -> tuple[RunDirectory, LaunchPlan]:
    """Create the run directory, or with `resume` continue the run in it.

    Raises:
        ConfigError: the configuration cannot run, or not on one machine; nothing is created.
        LaunchError: training is not installed here.
        RunDirectoryError: the directory holds a run and resume is off, or another configuration's run.
    """
    run, plan = RunDirectory(path.absolute()), plan_run(config)
    check_local(plan, "run")
    check_reward_settings(config, begun=run.warm_start.exists())
    if not run.prepared.exists():
        check_early(config)
    check_packages(config.tracking)
    check_backend(config)
    if run.exists() and not resume:
        raise RunDirectoryError(
            f"{path}: there is a run already",
            hint="continue it with --resume, or start another with --output DIR",
        )
    create_or_resume(config, plan, run, resume_command=f"grpo-dist run {run.config} --output {path} --resume")
    return run, plan


def execute(run: RunDirectory, plan: LaunchPlan, config: RunConfig, terminal: Terminal) -> None:
    """Run the stages that are not done yet.

    Raises:
        LaunchError: a stage failed; its log's last lines and path are in the message.
        Interrupted: a signal ended it; what is done is kept and `--resume` continues.
        Stopped: it saved and stopped because of `grpo-dist checkpoint`.
    """
    env = {**os.environ, **QUIET, **tracker_environment(config.tracking, run, os.environ, config.grpo.project)}
    allocator = allocator_environment(config, plan.topology, env)
    retry = "run the same command with --resume"
    all_stages, forked = stages(run, plan, config), can_fork(plan, config)
    run_stages(
        run,
        plan,
        all_stages,
        env=env,
        stage_env=allocator,
        terminal=terminal,
        retry=retry,
        forked=forked,
        stall_seconds=config.cluster.stall_seconds,
    )


def run_stages(
    run: RunDirectory,
    plan: LaunchPlan,
    all_stages: Sequence[Stage],
    *,
    env: Mapping[str, str],
    terminal: Terminal,
    retry: str,
    forked: bool,
    stage_env: Mapping[str, str] | None = None,
    stall_seconds: float = 0.0,
) -> None:
    """Run the stages whose result does not exist, in order, with the rollout servers they need.

    Args:
        retry: what to do after the cause of a failure is fixed, for error messages.
        forked: start the stages from a fork server.
        stage_env: variables for the stages but not for the servers.
        stall_seconds: `cluster.stall_seconds`, for the stage that trains.

    Raises:
        LaunchError, RolloutsGone: a stage failed.
        Interrupted: a signal ended it.
        Stopped: training saved and stopped on request.
    """
    with run.locked():
        missing = [stage for stage in all_stages if not stage.result.exists()]
        if not missing:
            return
        run.stop_request.unlink(missing_ok=True)
        logs = run.new_attempt()
        env = {**env, ATTEMPT_VARIABLE: str(logs)}
        with ExitStack() as stack:
            starter = stack.enter_context(_forks(run, plan, env)).start if forked else start
            for stage in missing:
                check_as_started(run)
                if stage.generates and plan.topology.replicas and not is_served(run.replicas, node=0):
                    stack.enter_context(serving(run, env=env, logs=logs, terminal=terminal))
                devices = device_environment(plan.topology, env, alone=stage.alone)
                log = logs / f"{stage.name}.log"
                stage_variables = {**env, **devices, **(stage_env or {})}
                watch = _watch(run, log, stall_seconds) if stage.name == "train" else lambda _process: None
                outcome = run_process(
                    stage.argv, env=stage_variables, log=log, terminal=terminal, start=starter, watch=watch
                )
                _check_outcome(stage, outcome, log, retry)


def _watch(run: RunDirectory, log: Path, stall_seconds: float) -> Callable[[Started], None]:
    """Raises LaunchError when no step ends any more; the stacks of all ranks are then in the log."""
    run.heartbeat.unlink(missing_ok=True)  # an earlier attempt's
    watchdog = Watchdog(stall_seconds, time.monotonic())

    def check(process: Started) -> None:
        watchdog.observe(step_in(run.heartbeat), time.monotonic())
        if not watchdog.overdue(time.monotonic()):
            return
        dump_stacks(descendants(process.pid) or descendants(os.getpid()))
        time.sleep(DUMP_SECONDS)
        running = running_rewards(log.parent)
        during = f"\nit was in {running}" if running else ""
        raise LaunchError(
            f"the train stage stands still: no step for {watchdog.limit:.0f} s after step {watchdog.step}{during}\n"
            f"  log, with the stacks of all ranks: {log}",
            hint=f"{_to_mend(running)}, then run the same command with --resume; "
            "cluster.stall_seconds is the least time that is waited",
        )

    return check


def _forks(run: RunDirectory, plan: LaunchPlan, env: Mapping[str, str]) -> Forks:
    return Forks(run.path, {**env, **device_environment(plan.topology, env, alone=True)})


def _check_outcome(stage: Stage, outcome: ProcessOutcome, log: Path, retry: str) -> None:
    if outcome.code == 0 and stage.result.exists():
        return
    if outcome.code == RolloutsGone.exit_code:
        raise RolloutsGone(f"the {stage.name} stage stopped, and what is done is kept: {outcome.reason}\n  log: {log}")
    if outcome.code == 0 and (step := stopped_at(log.parent)) is not None:
        raise Stopped(step)
    ended = ended_by(outcome.code) if outcome.code else f"ended without {stage.result}"
    running = "" if outcome.reason else running_rewards(log.parent)
    during = f"it was in {running}\n" if running else ""
    why = outcome.reason or f"{during}the last lines of its log:\n{log_tail(log)}"
    raise LaunchError(
        f"the {stage.name} stage {ended}: {why}\n  log: {log}",
        hint=None if OF_NO_USE in outcome.reason else f"{_to_mend(running)}, then {retry}",
    )


def _to_mend(running: str) -> str:
    """What to do first, given the reward functions that were running."""
    return LOOK_INTO_REWARD if running else "fix the cause"


def check_local(plan: LaunchPlan, command: str) -> None:
    """Check that the plan is for one machine.

    Raises:
        PlanError: it is for several.
    """
    if plan.topology.nodes > 1:
        raise PlanError(
            f"cluster.nodes: {plan.topology.nodes} nodes planned, and `grpo-dist {command}` runs on one",
            hint="--set cluster.nodes=1; what the nodes would do is shown by grpo-dist plan CONFIG",
        )


def log_tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])


def run_alongside(module: str, request: Mapping[str, Any], *, run: Path, result: Path, terminal: Terminal) -> None:
    """Run `python -m module REQUEST`, which creates `result`, on the device that the run was planned for.

    Its log is written next to the result, and kept only if it fails.

    Raises:
        LaunchError: it failed; the message has the reason or the last lines of the log.
        RunDirectoryError: the directory of the result cannot be created.
        Interrupted: a signal ended it.
    """
    check_packages(())
    log = result.with_name(f"{result.name}.log")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"{log.parent}: cannot be written ({error.strerror})", hint="choose another place with --output"
        ) from error
    argv = [sys.executable, "-m", module, json.dumps(request)]
    try:
        outcome = run_process(argv, env=_environment(run), log=log, terminal=terminal)
    except Interrupted:
        log.unlink(missing_ok=True)
        raise
    if outcome.code or not result.exists():
        why = outcome.reason or f"exit code {outcome.code}, the last lines of its log:\n{log_tail(log)}"
        raise LaunchError(f"{why}\n  log: {log}")
    log.unlink()


def _environment(run: Path) -> dict[str, str]:
    """The environment of a stage with one process. Planned GPUs are not selected: this machine may have fewer."""
    env = {**os.environ, **QUIET}
    topology = read_plan(RunDirectory(run)).topology
    return {**env, **device_environment(topology, env, alone=True)} if topology.on_cpu else env
