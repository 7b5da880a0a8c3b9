"""What Slurm gave to this job, read from the environment of its batch script and tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from grpo_dist.errors import LaunchError


@dataclass(frozen=True)
class Allocation:
    """A running Slurm job."""

    job_id: str
    """The job's own number; each task of an array has another."""
    nodes: int
    """Over all components of a heterogeneous job."""
    gpus_per_node: int
    restarts: int
    """Times Slurm has started this job again."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Allocation:
        """
        Raises:
            LaunchError: this is no Slurm job.
        """
        if "SLURM_JOB_ID" not in environ:
            raise LaunchError("this is no Slurm job: SLURM_JOB_ID is not set", hint="sbatch slurm/grpo.sh CONFIG")
        return cls(
            job_id=environ["SLURM_JOB_ID"],
            nodes=_nodes(environ),
            gpus_per_node=_gpus(environ),
            restarts=int(environ.get("SLURM_RESTART_COUNT", 0)),
        )


def _nodes(environ: Mapping[str, str]) -> int:
    components = int(environ.get("SLURM_HET_SIZE", 0))
    if not components:
        return int(environ.get("SLURM_JOB_NUM_NODES", 1))
    return sum(int(environ[f"SLURM_JOB_NUM_NODES_HET_GROUP_{index}"]) for index in range(components))


def _gpus(environ: Mapping[str, str]) -> int:
    """GPUs of the first node; Slurm's variables differ with the flag that asked for them."""
    if stated := environ.get("SLURM_GPUS_ON_NODE"):
        return int(stated)
    if counted := re.search(r"(\d+)(\(|$)", environ.get("SLURM_GPUS_PER_NODE", "")):
        return int(counted[1])
    masks = environ.get("SLURM_JOB_GPUS") or environ.get("CUDA_VISIBLE_DEVICES", "")
    return len([one for one in masks.split(",") if one])
