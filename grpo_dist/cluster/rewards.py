"""The reward preflight of a configuration, without a run."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpo_dist.cluster.checks import check_packages, check_rewards
from grpo_dist.cluster.process import run_process
from grpo_dist.cluster.stages import QUIET
from grpo_dist.config import RunConfig
from grpo_dist.errors import RewardError
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run_directory import RunDirectory

LOG_CHARS = 2000


def preflight(config: RunConfig, terminal: Terminal) -> dict[str, Any]:
    """What `rewards_preflight.json` of a run with this configuration would say.

    Raises:
        ConfigError: the configuration cannot run.
        RewardError: the preflight itself could not be made: data, tokenizer or rewards cannot be loaded.
        Interrupted: a signal ended it.
    """
    plan = plan_run(config)
    check_rewards(config)
    check_packages(())
    with tempfile.TemporaryDirectory(prefix="grpo-dist-rewards-") as place:
        run = RunDirectory(Path(place) / "run")
        run.create(render_files(config, plan))
        log = Path(place) / "log"
        argv = (sys.executable, "-m", "grpo_dist.training.rewards", str(run.path))
        outcome = run_process(argv, env={**os.environ, **QUIET}, log=log, terminal=terminal)
        if outcome.code or not run.rewards_preflight.exists():
            raise RewardError(outcome.reason or log.read_text(errors="replace")[-LOG_CHARS:])
        return json.loads(run.rewards_preflight.read_text(encoding="utf-8"))
