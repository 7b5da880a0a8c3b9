"""What is to run, and what the doctor knows of where.

Other programs, asked with a time-out.
"""

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
    """What a program printed; None when it is not there, fails, or does not answer in time."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def answers(*argv: str) -> bool:
    """Whether a program is there and ends well."""
    return output(*argv) is not None


RUNS = Path("runs")
"""Where `grpo-dist run` puts run directories."""


@dataclass(frozen=True)
class DoctorContext:
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


def doctor_context(
    config: RunConfig | None,
    plan: LaunchPlan | None,
    *,
    environ: Mapping[str, str] = os.environ,
    directory: Path = RUNS,
) -> DoctorContext:
    """The case on this machine. Inside a Slurm job, and where no Slurm answers, training would run here."""
    inside = "SLURM_JOB_ID" in environ
    return DoctorContext(config, plan, environ, directory, here=inside or not answers("sinfo", "--version"))


def hub_home(environ: Mapping[str, str]) -> Path:
    """Where the Hub's programs keep their token and caches, by their own rules."""
    default = os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(environ.get("HF_HOME") or default).expanduser()
