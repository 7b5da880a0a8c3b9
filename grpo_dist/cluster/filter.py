"""Ask the base model every problem of a configuration several times; each attempt goes on where the last one ended."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from grpo_dist.cluster.checks import check_packages, check_rewards
from grpo_dist.cluster.forks import can_fork
from grpo_dist.cluster.local import check_local, run_stages
from grpo_dist.cluster.stages import QUIET, Stage
from grpo_dist.config import RunConfig, config_differences, load_config
from grpo_dist.errors import LaunchError, RolloutError, RunDirectoryError
from grpo_dist.evaluation.pass_rates import PassRate, Record
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run_directory import RunDirectory


def as_in_training(config: RunConfig, samples: int) -> RunConfig:
    """The configuration with an evaluation that draws `samples` completions the way training does."""
    drawn = {"num_samples": samples, "temperature": None, "max_completion_length": None}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=drawn)})


def pass_rates(config: RunConfig, work: RunDirectory, terminal: Terminal, *, command: str) -> list[PassRate]:
    """The pass rates of all training problems, over `evaluation.num_samples` completions each.

    Args:
        work: where it is done, laid out as a run directory; made if it is not there.
        command: what the person typed, `filter` or `advise`.

    Raises:
        ConfigError: the configuration cannot run, or not on one machine.
        LaunchError, RolloutsGone: a stage failed; what is done stays.
        RunDirectoryError: another configuration's problems are in `work`, or another process works there.
        Interrupted: a signal ended it; what is done stays.
    """
    plan = plan_run(config)
    check_local(plan, command)
    check_rewards(config)
    check_packages(())
    if work.exists():
        _check_same(config, work)
    else:
        work.create(render_files(config, plan))
    again = "give the same command again"
    env, forked = {**os.environ, **QUIET}, can_fork(plan, config)
    run_stages(work, plan, _stages(work), env=env, terminal=terminal, again=again, forked=forked)
    return Record(work.pass_rates).read()


def few_pass_rates(config: RunConfig, samples: int, problems: int, terminal: Terminal) -> list[PassRate]:
    """Those of at most `problems` problems; nothing stays of the work but the log of a stage that failed.

    Raises:
        As `pass_rates`.
    """
    few = as_in_training(config, samples)
    limit = min(problems, few.data.max_samples or problems)
    few = few.model_copy(update={"data": few.data.model_copy(update={"max_samples": limit})})
    place = Path(tempfile.mkdtemp(prefix="grpo-dist-advise-"))
    try:
        found = pass_rates(few, RunDirectory(place / "work"), terminal, command="advise")
    except (LaunchError, RolloutError):
        raise  # its words name the log
    except BaseException:
        shutil.rmtree(place)
        raise
    shutil.rmtree(place)
    return found


def _stages(work: RunDirectory) -> list[Stage]:
    python, where = sys.executable, str(work.path)
    prepare = (python, "-m", "grpo_dist.training.filter_prepare", where)
    sample = (python, "-m", "grpo_dist.training.filter_sample", where)
    return [
        Stage("prepare", prepare, work.prepared, alone=True, generates=False),
        Stage("sample", sample, work.sampled, alone=True, generates=True),
    ]


def _check_same(config: RunConfig, work: RunDirectory) -> None:
    differences = config_differences(load_config(work.config), config)
    if differences:
        listed = "\n".join(f"  {name}: {before!r} there, {now!r} now" for name, before, now in differences)
        raise RunDirectoryError(
            f"{work.path}: holds answers of another configuration:\n{listed}",
            hint="go on with the one it was begun with, choose another --output, or remove that directory",
        )
