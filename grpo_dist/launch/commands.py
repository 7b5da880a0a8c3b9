"""Work on a configuration that is no training run: pass rates of the base model, prefetch, and the reward preflight."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_dist.config import RunConfig, config_differences, dump_config, load_config
from grpo_dist.config.load import listed_differences
from grpo_dist.data.early import check_early
from grpo_dist.errors import LaunchError, RewardError, RolloutError, RunDirectoryError
from grpo_dist.evaluation.pass_rates import PassRate, Record
from grpo_dist.findings import Finding, any_error
from grpo_dist.launch.checks import check_packages, check_reward_settings
from grpo_dist.launch.forks import can_fork
from grpo_dist.launch.local import check_local, run_stages
from grpo_dist.launch.process import run_process
from grpo_dist.launch.stages import QUIET, Stage, stage_command
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run.directory import CONFIG_FILE, RunDirectory, read_json


def as_in_training(config: RunConfig, samples: int) -> RunConfig:
    """The configuration with an evaluation that samples `samples` completions as training does."""
    drawn = {"num_samples": samples, "temperature": None, "max_completion_length": None}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=drawn)})


def pass_rates(config: RunConfig, work: RunDirectory, terminal: Terminal, *, command: str) -> list[PassRate]:
    """The pass rates of all training problems, over `evaluation.num_samples` completions each.

    Called again, it continues where the last call ended.

    Args:
        work: directory for the work, laid out as a run directory; created if it does not exist.
        command: the command the user typed, `filter` or `advise`.

    Raises:
        ConfigError: the configuration cannot run, or not on one machine.
        LaunchError, RolloutsGone: a stage failed; what is done is kept.
        RunDirectoryError: `work` holds answers of another configuration, or another process works there.
        Interrupted: a signal ended it; what is done is kept.
    """
    plan = plan_run(config)
    check_local(plan, command)
    check_reward_settings(config)
    check_early(config)
    check_packages(())
    if work.exists():
        _check_same(config, work)
    else:
        work.create(render_files(config, plan))
    retry = "give the same command again"
    env, forked = {**os.environ, **QUIET}, can_fork(plan, config)
    run_stages(work, plan, _stages(work), env=env, terminal=terminal, retry=retry, forked=forked)
    return Record(work.pass_rates).read()


def few_pass_rates(config: RunConfig, samples: int, problems: int, terminal: Terminal) -> list[PassRate]:
    """The pass rates of at most `problems` problems. Only the log of a failed stage is kept.

    Raises:
        As `pass_rates`.
    """
    few = as_in_training(config, samples)
    limit = min(problems, few.data.max_samples or problems)
    few = few.model_copy(update={"data": few.data.model_copy(update={"max_samples": limit})})
    scratch = Path(tempfile.mkdtemp(prefix="grpo-dist-advise-"))
    try:
        found = pass_rates(few, RunDirectory(scratch / "work"), terminal, command="advise")
    except (LaunchError, RolloutError):
        raise  # the message names the log
    except BaseException:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return found


def _stages(work: RunDirectory) -> list[Stage]:
    return [
        Stage("prepare", stage_command("filter-prepare", work), work.prepared, alone=True, generates=False),
        Stage("sample", stage_command("filter-sample", work), work.sampled, alone=True, generates=True),
    ]


def _check_same(config: RunConfig, work: RunDirectory) -> None:
    differences = config_differences(load_config(work.config), config)
    if differences:
        listed = listed_differences(differences, "there")
        raise RunDirectoryError(
            f"{work.path}: holds answers of another configuration:\n{listed}",
            hint="continue with the one it was started with, choose another --output, or remove that directory",
        )


LOG_CHARS = 2000
ONLINE = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
OFFLINE = {**ONLINE, "HF_HUB_OFFLINE": "1"}


def prefetch(config: RunConfig, terminal: Terminal) -> list[Finding]:
    """Fetch what a configuration loads from the Hub, then load it offline: one finding for each fetch and each load.

    Raises:
        LaunchError: training is not installed here, or a process of the prefetch failed.
        Interrupted: a signal ended it; what was fetched is kept.
    """
    check_packages(())
    with tempfile.TemporaryDirectory(prefix="grpo-dist-prefetch-") as scratch:
        config_file = Path(scratch) / CONFIG_FILE
        config_file.write_text(dump_config(config), encoding="utf-8")  # in a directory of ours alone
        fetched = _stage("fetch", config_file, ONLINE, terminal)
        return fetched if any_error(fetched) else [*fetched, *_stage("check", config_file, OFFLINE, terminal)]


def _stage(mode: str, config_file: Path, variables: Mapping[str, str], terminal: Terminal) -> list[Finding]:
    log, result = config_file.with_name(f"{mode}.log"), config_file.with_name(f"{mode}.json")
    argv = (sys.executable, "-m", "grpo_dist.training.stages.prefetch", mode, str(config_file), str(result))
    outcome = run_process(argv, env={**os.environ, **QUIET, **variables}, log=log, terminal=terminal)
    if outcome.code or not result.exists():
        raise LaunchError(f"the prefetch ended with exit code {outcome.code}:\n{log.read_text()[-LOG_CHARS:]}")
    return [Finding(**finding) for finding in json.loads(result.read_text(encoding="utf-8"))]


def preflight(config: RunConfig, terminal: Terminal) -> dict[str, Any]:
    """The reward preflight of a configuration, as `rewards_preflight.json` of a run would have it.

    Raises:
        ConfigError: the configuration cannot run.
        RewardError: the preflight could not run: data, tokenizer or rewards cannot be loaded.
        Interrupted: a signal ended it.
    """
    plan = plan_run(config)
    check_reward_settings(config)
    check_early(config)
    check_packages(())
    with tempfile.TemporaryDirectory(prefix="grpo-dist-rewards-") as scratch:
        run = RunDirectory(Path(scratch) / "run")
        run.create(render_files(config, plan))
        log = Path(scratch) / "log"
        outcome = run_process(stage_command("rewards", run), env={**os.environ, **QUIET}, log=log, terminal=terminal)
        if outcome.code or not run.rewards_preflight.exists():
            raise RewardError(outcome.reason or log.read_text(errors="replace")[-LOG_CHARS:])
        return read_json(run.rewards_preflight)
