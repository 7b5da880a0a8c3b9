"""A process that works on a finished run and is no stage of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dist.cluster.checks import check_packages
from grpo_dist.cluster.devices import device_environment
from grpo_dist.cluster.local import log_tail
from grpo_dist.cluster.process import Interrupted, run_process
from grpo_dist.cluster.stages import QUIET
from grpo_dist.errors import LaunchError, RunDirectoryError
from grpo_dist.plan import LaunchPlan
from grpo_dist.progress import Terminal
from grpo_dist.run_directory import RunDirectory


def run_beside(module: str, request: Mapping[str, Any], *, run: Path, result: Path, terminal: Terminal) -> None:
    """Run `python -m module REQUEST` until `result` stands, on the device that the run was planned for.

    Its log lies beside the result while it works, and stays only when it fails.

    Raises:
        LaunchError: it failed; the reason, or the last lines of its log, are in the message.
        RunDirectoryError: the directory of the result cannot be made.
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
    """As a lone stage has it. Where a GPU was planned, this machine may have fewer, and one will do."""
    env = {**os.environ, **QUIET}
    topology = LaunchPlan.from_json(RunDirectory(run).plan.read_text()).topology
    return env if topology.device == "cuda" else {**env, **device_environment(topology, env, alone=True)}
