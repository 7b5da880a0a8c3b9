"""Machines and GPUs → training processes and rollout replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Replica:
    """One vLLM server."""

    node: int
    """Node it runs on, counted from 0 in the order of the allocation."""
    gpus: tuple[int, ...]
    """Its GPUs on that node (CUDA indices); as many as the tensor-parallel size."""


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
