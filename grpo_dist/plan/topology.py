"""Machines and devices → training processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError


@dataclass(frozen=True)
class Topology:
    """Where the training processes run. Counts are over the whole run unless the name says otherwise."""

    nodes: int
    gpus_per_node: int
    num_processes: int
    device: Literal["cpu", "cuda"]

    @property
    def distributed_type(self) -> str:
        """The value Accelerate's `DistributedType` must have inside the launched processes."""
        if self.num_processes == 1:
            return "NO"
        return "MULTI_CPU" if self.device == "cpu" else "MULTI_GPU"

    @property
    def processes_key(self) -> str:
        """The setting that changes num_processes."""
        return "distributed.num_processes" if self.device == "cpu" else "cluster.gpus_per_node"


def topology(config: RunConfig) -> Topology:
    """One process per GPU, or `distributed.num_processes` processes on CPU."""
    nodes, gpus = config.cluster.nodes, config.cluster.gpus_per_node
    stated = config.distributed.num_processes
    if gpus == 0:
        return Topology(nodes, 0, stated or 1, "cpu")
    if stated not in (None, nodes * gpus):
        raise PlanError(
            f"distributed.num_processes: {stated} processes stated, but {nodes} node × {gpus} GPUs = {nodes * gpus}: "
            f"each GPU is driven by one process",
            hint=f"leave distributed.num_processes out, or --set cluster.gpus_per_node={stated}",
        )
    return Topology(nodes, gpus, nodes * gpus, "cuda")
