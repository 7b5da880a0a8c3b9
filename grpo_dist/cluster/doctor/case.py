"""What is to run, and what the doctor knows of where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.cluster.doctor import commands
from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan

RUNS = Path("runs")
"""Where `grpo-dist run` puts run directories."""


@dataclass(frozen=True)
class Case:
    """One examination."""

    config: RunConfig | None
    """None: the machine alone is looked at, and nothing is missing that only some configuration needs."""
    plan: LaunchPlan | None
    """None without a configuration, or when it cannot be planned."""
    environ: Mapping[str, str]
    directory: Path
    """Where the run directory is, or will be."""
    here: bool
    """Whether training would run on this machine: inside a job, or where there is no Slurm to submit to."""

    @property
    def wants_gpus(self) -> int:
        """GPUs the plan needs of this machine; 0 on CPU, or when it does not run here."""
        return self.plan.topology.gpus_per_node if self.plan and self.here else 0

    @property
    def several_nodes(self) -> bool:
        return self.plan is not None and self.plan.topology.nodes > 1


def case_of(
    config: RunConfig | None,
    plan: LaunchPlan | None,
    *,
    environ: Mapping[str, str] = os.environ,
    directory: Path = RUNS,
) -> Case:
    """The case on this machine. Inside a Slurm job, and where no Slurm answers, training would run here."""
    inside = "SLURM_JOB_ID" in environ
    return Case(config, plan, environ, directory, here=inside or not commands.answers("sinfo", "--version"))


def hub_home(environ: Mapping[str, str]) -> Path:
    """Where the Hub's programs keep their token and caches, by their own rules."""
    default = os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(environ.get("HF_HOME") or default).expanduser()
