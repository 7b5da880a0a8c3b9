"""The input of all checks: configuration, plan, environment, and whether training would run on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan

SECONDS = 20.0


def output(*argv: str, timeout_s: float = SECONDS) -> str | None:
    """The output of a program; None if it is not installed, fails, or does not answer in time."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def answers(*argv: str) -> bool:
    """Whether a program is installed and exits with code 0."""
    return output(*argv) is not None


RUNS = Path("runs")
"""Where `grpo-dist run` creates run directories."""


@dataclass(frozen=True)
class DoctorContext:
    """What the checks are about."""

    config: RunConfig | None
    """None: only the machine is checked, and nothing counts as missing that only some configurations need."""
    plan: LaunchPlan | None
    """None without a configuration, or if it cannot be planned."""
    environ: Mapping[str, str]
    directory: Path
    """Where the run directory is or will be created."""
    here: bool
    """Whether training would run on this machine: inside a job, or without a Slurm to submit to."""

    @property
    def wants_gpus(self) -> int:
        """GPUs the plan needs on this machine; 0 on CPU, or if training does not run here."""
        return self.plan.topology.gpus_per_node if self.plan and self.here else 0

    @property
    def several_nodes(self) -> bool:
        """Whether the plan has more than one node."""
        return self.plan is not None and self.plan.topology.nodes > 1


def doctor_context(
    config: RunConfig | None,
    plan: LaunchPlan | None,
    *,
    environ: Mapping[str, str] = os.environ,
    directory: Path = RUNS,
) -> DoctorContext:
    """The context on this machine. Training would run here inside a Slurm job, or if no Slurm answers."""
    inside = "SLURM_JOB_ID" in environ
    return DoctorContext(config, plan, environ, directory, here=inside or not answers("sinfo", "--version"))
