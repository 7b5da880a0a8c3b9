"""The debug run itself: a run directory of its own, the same stages, and one more."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grpo_dist import metrics
from grpo_dist.cluster.checks import check_backend, check_packages, check_rewards
from grpo_dist.cluster.debug.findings import of_the_longest_batch, of_the_plan, of_the_rewards, of_the_steps
from grpo_dist.cluster.debug.machine import this_machine
from grpo_dist.cluster.forks import can_fork
from grpo_dist.cluster.local import run_stages
from grpo_dist.cluster.stages import QUIET, Stage, launched, stages
from grpo_dist.config import RunConfig
from grpo_dist.errors import LaunchError, RolloutError, RunDirectoryError
from grpo_dist.findings import Finding, any_error
from grpo_dist.plan import plan_run
from grpo_dist.plan.debug import Debug, scaled_down
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run_directory import RunDirectory, write_json


def open_debug(config: RunConfig, path: Path) -> tuple[RunDirectory, Debug]:
    """Scale the configuration down to this machine, and make the run directory; an earlier debug run there gives way.

    Raises:
        ConfigError: the configuration cannot run on its cluster, or Unsloth is asked for and not installed here.
        LaunchError: training is not installed here.
        ModelError: not even the tokenizer of the model can be had.
        RunDirectoryError: a real run stands there, or the earlier debug run is still going on.
    """
    check_rewards(config)
    check_packages(())
    run = RunDirectory(path.absolute())
    _check_free(run)
    debug = scaled_down(config, this_machine(config, os.environ), str(run.model))
    check_backend(debug.config)
    if run.exists():
        shutil.rmtree(run.path)
    run.create({**render_files(debug.config, debug.plan), run.debug.name: json.dumps(_record(config, debug))})
    return run, debug


def debug(config: RunConfig, run: RunDirectory, made: Debug, terminal: Terminal) -> list[Finding]:
    """Run its stages as far as they go; what they tell of the cluster's run, also in the run directory.

    Raises:
        Interrupted: a signal ended it.
    """
    env, failure = {**os.environ, **QUIET}, None
    try:
        again = "run the same command again"
        forked = can_fork(made.plan, made.config)
        run_stages(run, made.plan, _stages(run, made), env=env, terminal=terminal, again=again, forked=forked)
    except (LaunchError, RolloutError) as error:
        failure = error
    found = list(_findings(config, run, made))
    told = any_error(found) and not run.prepared.exists()  # the rewards stopped it, and are told already
    if failure is not None and not told:
        found.append(Finding("run", "error", failure.message, failure.hint))
    write_json(run.debug, {**_record(config, made), "findings": [finding.to_dict() for finding in found]})
    return found


def _check_free(run: RunDirectory) -> None:
    """Nothing but a debug run that has ended may be replaced."""
    if not run.exists():
        return
    if not run.debug.exists():
        raise RunDirectoryError(
            f"{run.path}: a run stands there already, and it is no debug run",
            hint="choose another place for this one with --output DIR",
        )
    with run.locked():
        pass


def _stages(run: RunDirectory, made: Debug) -> list[Stage]:
    found = stages(run, made.plan, made.config)
    if made.small:
        argv = (sys.executable, "-m", "grpo_dist.training.small_model", str(run.path))
        found.insert(0, Stage("small-model", argv, run.model, alone=True, generates=False))
    argv = launched("grpo_dist.training.longest_batch", run, made.plan)
    return [*found, Stage("longest-batch", argv, run.longest_batch, alone=True, generates=False)]


def _findings(config: RunConfig, run: RunDirectory, made: Debug) -> Iterator[Finding]:
    stated = plan_run(config)
    yield from of_the_plan(stated)
    yield from of_the_rewards(_json(run.rewards_preflight))
    yield from of_the_steps(config, made, metrics.read(run.metrics))
    yield from of_the_longest_batch(made, stated, _json(run.longest_batch))


def _record(config: RunConfig, made: Debug) -> dict[str, Any]:
    """`debug.json`, but for what comes of it."""
    return {
        "model": {"name_or_path": config.model.name_or_path, "revision": config.model.revision},
        "changes": [change._asdict() for change in made.changes],
        "remains": list(made.remains),
    }


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
