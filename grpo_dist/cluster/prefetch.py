"""Fetch what a configuration names, and see that it loads without a network."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from grpo_dist.cluster.checks import check_packages
from grpo_dist.cluster.process import run_process
from grpo_dist.cluster.stages import QUIET
from grpo_dist.config import RunConfig, dump_config
from grpo_dist.errors import LaunchError
from grpo_dist.findings import Finding, any_error
from grpo_dist.progress import Terminal

LOG_CHARS = 2000
ONLINE = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
OFFLINE = {**ONLINE, "HF_HUB_OFFLINE": "1"}


def prefetch(config: RunConfig, terminal: Terminal) -> list[Finding]:
    """One finding for each model and data set that was fetched, and one for each load without a network.

    Raises:
        LaunchError: training is not installed here, or a process of the prefetch failed.
        Interrupted: a signal ended it; what has come stays.
    """
    check_packages(())
    with tempfile.TemporaryDirectory(prefix="grpo-dist-prefetch-") as place:
        stated = Path(place) / "config.yaml"
        stated.write_text(dump_config(config), encoding="utf-8")
        fetched = _stage("fetch", stated, ONLINE, terminal)
        return fetched if any_error(fetched) else [*fetched, *_stage("check", stated, OFFLINE, terminal)]


def _stage(mode: str, stated: Path, variables: Mapping[str, str], terminal: Terminal) -> list[Finding]:
    log, result = stated.with_name(f"{mode}.log"), stated.with_name(f"{mode}.json")
    argv = (sys.executable, "-m", "grpo_dist.training.prefetch", mode, str(stated), str(result))
    outcome = run_process(argv, env={**os.environ, **QUIET, **variables}, log=log, terminal=terminal)
    if outcome.code or not result.exists():
        raise LaunchError(f"the prefetch ended with exit code {outcome.code}:\n{log.read_text()[-LOG_CHARS:]}")
    return [Finding(**finding) for finding in json.loads(result.read_text(encoding="utf-8"))]
