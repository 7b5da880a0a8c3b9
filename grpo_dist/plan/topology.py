"""Machines and GPUs → training processes and rollout replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grpo_dist.plan.split import Machines, Split


@dataclass(frozen=True)
class Replica:
    """One vLLM server."""

    node: int
    """Node it runs on, counted from 0 in the order of the allocation."""
    gpus: tuple[int, ...]
    """Its GPUs on that node (CUDA indices); as many as the tensor-parallel size, none on CPU."""


@dataclass(frozen=True)
class Topology:
    """Who runs where. Trainer nodes come first in the allocation, rollout nodes last."""

    nodes: int
    gpus_per_node: int
    device: Literal["cpu", "cuda"]
    mode: Literal["transformers", "colocate", "server"]
    num_processes: int
    """Training processes: TRL's world size."""
    trainer_nodes: int
    """Nodes that run training processes; `num_processes / trainer_nodes` on each."""
    trainer_gpus: tuple[int, ...]
    """GPUs of each trainer node that train; empty on CPU."""
    replicas: tuple[Replica, ...]
    """vLLM servers; empty unless mode is `server`. Their GPUs and the trainers' are disjoint."""
    tensor_parallel_size: int
    idle_gpus: int
    """GPUs of the allocation that nothing uses."""
    reason: str
    """Why this split, in a sentence with numbers."""


def topology(machines: Machines, split: Split, reason: str) -> Topology:
    """The split on numbered nodes and GPUs: training first, generation last."""
    replicas = tuple(_replicas(machines, split))
    used = split.num_processes + split.rollout_gpus
    on_gpus = machines.gpus_per_node > 0
    return Topology(
        nodes=machines.nodes,
        gpus_per_node=machines.gpus_per_node,
        device="cuda" if on_gpus else "cpu",
        mode=machines.mode,
        num_processes=split.num_processes,
        trainer_nodes=split.trainer_nodes,
        trainer_gpus=tuple(range(split.trainers_per_node)) if on_gpus else (),
        replicas=replicas,
        tensor_parallel_size=split.tensor_parallel_size,
        idle_gpus=machines.nodes * machines.gpus_per_node - used if on_gpus else 0,
        reason=reason,
    )


def _replicas(machines: Machines, split: Split) -> Iterator[Replica]:
    """Spread evenly over their nodes, node by node; on each from its last GPU down."""
    size, gpus = split.tensor_parallel_size, machines.gpus_per_node
    first, nodes = (split.trainer_nodes, split.rollout_nodes) if split.rollout_nodes else (0, machines.nodes)
    each, more = divmod(split.replicas, nodes)
    for node in range(nodes):
        count = each + (node < more)
        for i in range(count):
            start = gpus - (count - i) * size
            yield Replica(first + node, tuple(range(start, start + size)) if gpus else ())
