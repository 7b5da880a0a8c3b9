"""Checks that need no process: rewards, backend, installed packages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from grpo_dist.config import RunConfig
from grpo_dist.config.generators import INSTALL, is_generated, is_installed
from grpo_dist.doctor.packages import INSTALL_UNSLOTH, unsloth_missing
from grpo_dist.errors import ConfigError, LaunchError
from grpo_dist.plan.named_files import check_adapter, check_files
from grpo_dist.plan.specs.architecture import bitsandbytes
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.names import check_reward_names

TRAINING_PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets")


def check_reward_settings(config: RunConfig, *, begun: bool = False) -> None:
    """Check names and arguments of built-in rewards, files and the adapter to continue; the user's own functions are
    imported by the run. Also that the generator of the problems, which grades them, is installed.

    Args:
        begun: the run has copied its adapter already, which need not be there any more.

    Raises:
        LaunchError: the generator is not installed.
        PlanError: a file is missing, or the adapter cannot be continued.
        ConfigError: a name or argument is wrong; the message lists all of them.
    """
    check_files(config)
    if not begun:
        check_adapter(config)
    if is_generated(config.data.name_or_path) and not is_installed():
        raise LaunchError(
            f"data.name_or_path: {config.data.name_or_path} needs reasoning-gym, not installed beside {sys.executable}",
            hint=INSTALL,
        )
    configured = {"rewards.functions": config.rewards.functions, "evaluation.scorer": (config.evaluation.scorer,)}
    problems = [f"{where}: {what}" for where, functions in configured.items() for what in check_reward_names(functions)]
    if problems:
        built_in = ", ".join((*REWARD_SETS, *REWARDS))
        raise ConfigError("\n".join(problems), hint=f"ours: {built_in}; yours: path/file.py:function")


def check_backend(config: RunConfig) -> None:
    """Check that Unsloth and bitsandbytes are installed, if the model asks for them.

    Raises:
        ConfigError: one is not, or not in a supported version.
    """
    on_cpu = config.cluster.gpus_per_node == 0
    if config.model.requires_unsloth and (missing := unsloth_missing(on_cpu=on_cpu)):
        raise ConfigError(f"model.backend: {missing}", hint=INSTALL_UNSLOTH)
    quantized = config.model.model_init_kwargs.get("quantization_config") or {}
    if bitsandbytes(quantized) and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.model_init_kwargs: quantization_config needs bitsandbytes, which is not installed",
            hint="pip install bitsandbytes",
        )


def check_packages(trackers: Sequence[str]) -> None:
    """Check that the packages of training and of the trackers are installed; nothing is imported.

    Raises:
        ConfigError: a tracker is missing.
        LaunchError: a package of training is missing.
    """
    if missing := [name for name in trackers if find_spec(name) is None]:
        raise ConfigError(
            f"tracking: {', '.join(missing)} not installed",
            hint=f"pip install {' '.join(missing)}, or leave it out of tracking",
        )
    if missing := [name for name in TRAINING_PACKAGES if find_spec(name) is None]:
        raise LaunchError(
            f"training needs {', '.join(missing)}, not installed for {sys.executable}",
            hint="pip install 'grpo-dist[train]'",
        )
