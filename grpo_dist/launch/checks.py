"""What can be told before a process is started."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from grpo_dist.config import RunConfig
from grpo_dist.doctor.packages import INSTALL_UNSLOTH, unsloth_missing
from grpo_dist.errors import ConfigError, LaunchError
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.names import check_reward_names

TRAINING_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets")


def check_rewards(config: RunConfig) -> None:
    """Names and arguments of our rewards; the user's own are imported by the run.

    Raises:
        ConfigError: all that is wrong with them.
    """
    stated = {"rewards.functions": config.rewards.functions, "evaluation.scorer": (config.evaluation.scorer,)}
    problems = [f"{where}: {what}" for where, functions in stated.items() for what in check_reward_names(functions)]
    if problems:
        ours = ", ".join((*REWARD_SETS, *REWARDS))
        raise ConfigError("\n".join(problems), hint=f"ours: {ours}; yours: path/file.py:function")


def check_backend(config: RunConfig) -> None:
    """Whether Unsloth is installed, and supported, where it is asked for by name.

    Raises:
        ConfigError: it is not.
    """
    on_cpu = config.cluster.gpus_per_node == 0
    if config.model.backend == "unsloth" and (missing := unsloth_missing(on_cpu=on_cpu)):
        raise ConfigError(f"model.backend: {missing}", hint=INSTALL_UNSLOTH)


def check_packages(trackers: Sequence[str]) -> None:
    """Whether training, and the trackers asked for, are installed; nothing is imported.

    Raises:
        ConfigError: a tracker is not.
        LaunchError: training is not.
    """
    if missing := [name for name in trackers if find_spec(name) is None]:
        raise ConfigError(
            f"tracking: {', '.join(missing)} not installed",
            hint=f"pip install {' '.join(missing)}, or leave it out of tracking",
        )
    if missing := [name for name in TRAINING_PACKAGES if find_spec(name) is None]:
        raise LaunchError(
            f"training needs {', '.join(missing)}, not installed beside {sys.executable}",
            hint="pip install 'grpo-dist[train]'",
        )
