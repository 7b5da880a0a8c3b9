"""A whole run on this machine: prepare, train, compare, report; each stage a process, each done once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.cluster.checks import check_packages, check_rewards
from grpo_dist.cluster.devices import device_environment
from grpo_dist.cluster.process import Interrupted, run_process
from grpo_dist.cluster.servers import serving
from grpo_dist.cluster.trackers import tracker_environment
from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.errors import LaunchError, PlanError, RolloutsGone, RunDirectoryError
from grpo_dist.plan import LaunchPlan, plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.accelerate import launch_arguments
from grpo_dist.render.files import render_files
from grpo_dist.rollout.registry import is_served
from grpo_dist.run_directory import RunDirectory

LOG_TAIL_LINES = 15
QUIET = {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
"""No warnings about forked tokenizers, and a log whose lines are in order."""


def open_run(config: RunConfig, path: Path, *, resume: bool) -> tuple[RunDirectory, LaunchPlan]:
    """Make the run directory, or with resume take up the one that stands there.

    Raises:
        ConfigError: the configuration cannot run, or not on one machine; nothing is made.
        LaunchError: training is not installed here.
        RunDirectoryError: the directory holds a run and resume is off, or another configuration's run.
    """
    run, plan = RunDirectory(path.absolute()), plan_run(config)
    check_local(plan, "run")
    check_rewards(config)
    check_packages(config.tracking)
    if run.exists():
        _check_same_run(config, run, path, resume=resume)
    else:
        run.create(render_files(config, plan))
    return run, plan


def execute(run: RunDirectory, plan: LaunchPlan, config: RunConfig, terminal: Terminal) -> None:
    """Run the stages that are not done yet.

    Raises:
        LaunchError: a stage failed; its log's last lines and path are in the message.
        Interrupted: a signal ended it; what is done stays and `--resume` continues.
    """
    env = {**os.environ, **QUIET, **tracker_environment(config.tracking, run, os.environ)}
    again = "run the same command with --resume"
    run_stages(run, plan, _stages(run, plan, config), env=env, terminal=terminal, again=again)


@dataclass(frozen=True)
class Stage:
    """One process of a run; its result stands when, and only when, it is done."""

    name: str
    argv: tuple[str, ...]
    result: Path
    alone: bool
    """One process on one device, whatever the plan has."""
    generates: bool
    """It asks the rollout servers, where there are any."""


def run_stages(
    run: RunDirectory,
    plan: LaunchPlan,
    stages: Sequence[Stage],
    *,
    env: Mapping[str, str],
    terminal: Terminal,
    again: str,
) -> None:
    """Run those of the stages whose result does not stand, in order, with the rollout servers they need.

    Args:
        again: what to do once the cause of a failure is mended.

    Raises:
        LaunchError, RolloutsGone: a stage failed.
        Interrupted: a signal ended it.
    """
    with run.locked():
        missing = [stage for stage in stages if not stage.result.exists()]
        logs = run.new_attempt() if missing else None
        with ExitStack() as until_the_end:
            for stage in missing:
                if stage.generates and plan.topology.replicas and not is_served(run.replicas, node=0):
                    until_the_end.enter_context(serving(run, env=env, logs=logs, terminal=terminal))
                devices = device_environment(plan.topology, env, alone=stage.alone)
                log = logs / f"{stage.name}.log"
                _run_stage(stage, env={**env, **devices}, log=log, terminal=terminal, again=again)


def _stages(run: RunDirectory, plan: LaunchPlan, config: RunConfig) -> list[Stage]:
    python, where = sys.executable, str(run.path)
    launch = (python, "-m", "accelerate.commands.launch", *launch_arguments(plan, where))
    stages = [
        Stage("prepare", (python, "-m", "grpo_dist.training.prepare", where), run.prepared, True, False),
        Stage("train", (*launch, "-m", "grpo_dist.training", where), run.adapter, False, True),
    ]
    if config.evaluation.enabled:
        argv = (python, "-m", "grpo_dist.training.compare", where)
        stages.append(Stage("compare", argv, run.comparison, True, True))
    return stages


def _run_stage(stage: Stage, *, env: dict[str, str], log: Path, terminal: Terminal, again: str) -> None:
    outcome = run_process(stage.argv, env=env, log=log, terminal=terminal)
    if outcome.code == 0 and stage.result.exists():
        return
    if outcome.code == RolloutsGone.exit_code:
        raise RolloutsGone(f"the {stage.name} stage has saved and stopped: {outcome.reason}\n  log: {log}")
    ended = f"ended with exit code {outcome.code}" if outcome.code else f"ended without {stage.result}"
    why = outcome.reason or f"the last lines of its log:\n{log_tail(log)}"
    raise LaunchError(
        f"the {stage.name} stage {ended}: {why}\n  log: {log}",
        hint=f"mend the cause, then {again}",
    )


def check_local(plan: LaunchPlan, command: str) -> None:
    """Raises PlanError for a plan of several machines: this command starts processes on one."""
    if plan.topology.nodes > 1:
        raise PlanError(
            f"cluster.nodes: {plan.topology.nodes} nodes planned, and `grpo-dist {command}` runs on one",
            hint="--set cluster.nodes=1; what the nodes would do is shown by grpo-dist plan CONFIG",
        )


def _check_same_run(config: RunConfig, run: RunDirectory, path: Path, *, resume: bool) -> None:
    if not resume:
        raise RunDirectoryError(
            f"{path}: a run stands there already",
            hint="continue it with --resume, or start another with --output DIR",
        )
    differences = config_differences(load_config(run.config), config)
    if differences:
        listed = "\n".join(f"  {name}: {before!r} in the run, {now!r} now" for name, before, now in differences)
        raise RunDirectoryError(
            f"{path}: the run was started with another configuration:\n{listed}",
            hint=f"resume with what it was started with (grpo-dist run {run.config} --output {path} --resume), "
            f"or start another run with --output DIR",
        )


def log_tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])


__all__ = ["Interrupted", "Stage", "check_local", "execute", "log_tail", "open_run", "run_stages"]
