"""Machines and GPUs → training processes and rollout replicas; the possible splits of machines between the two.

Every training node runs the same number of training processes; a replica never spans nodes, because its GPUs sum
activations twice a layer. Also which GPUs of a node a program may use, within those visible to this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from grpo_dist.config import RunConfig
from grpo_dist.errors import PlanError
from grpo_dist.text import plural

Mode = Literal["transformers", "colocate", "server"]


@dataclass(frozen=True)
class Machines:
    """The machines, and the configured split; None is left open."""

    nodes: int
    gpus_per_node: int
    """0: CPU."""
    mode: Mode = "transformers"
    num_processes: int | None = None
    replicas: int | None = None
    rollout_nodes: int | None = None
    """Whole nodes for generation; 0: some GPUs of each node."""
    tensor_parallel_size: int = 1

    @property
    def serves(self) -> bool:
        """Whether vLLM servers generate."""
        return self.mode == "server"

    @property
    def is_open(self) -> bool:
        """Whether the split of server mode is left to the planner."""
        return (
            self.serves
            and self.gpus_per_node > 0
            and not self.rollout_nodes
            and self.replicas is None
            and self.num_processes is None
        )

    @property
    def capacity(self) -> int:
        """Replicas a whole node holds."""
        return self.gpus_per_node // self.tensor_parallel_size

    def __str__(self) -> str:
        if not self.gpus_per_node:
            return f"{plural(self.nodes, 'node')} on CPU"
        return f"{plural(self.nodes, 'node')} × {self.gpus_per_node} GPUs"


@dataclass(frozen=True)
class Split:
    """One split of the machines."""

    trainer_nodes: int
    trainers_per_node: int
    rollout_nodes: int = 0
    """Nodes that only generate."""
    rollout_gpus_per_node: int = 0
    """GPUs of each training node that only generate."""
    replicas: int = 0
    tensor_parallel_size: int = 1

    @property
    def num_processes(self) -> int:
        return self.trainer_nodes * self.trainers_per_node

    @property
    def rollout_gpus(self) -> int:
        """GPUs in use by replicas."""
        return self.replicas * self.tensor_parallel_size


def machines_of(config: RunConfig, tensor_parallel_size: int) -> Machines:
    """The machines of a configuration."""
    rollout = config.rollout
    return Machines(
        nodes=config.cluster.nodes,
        gpus_per_node=config.cluster.gpus_per_node,
        mode=rollout.mode if rollout.uses_vllm else "transformers",
        num_processes=config.distributed.num_processes,
        replicas=None if rollout.replicas == "auto" else rollout.replicas,
        rollout_nodes=None if rollout.nodes == "auto" else rollout.nodes,
        tensor_parallel_size=tensor_parallel_size,
    )


def splits(machines: Machines, completions: int | None = None) -> Iterator[Split]:
    """All splits, or those whose training processes divide the completions of a step evenly.

    If nothing is configured, all GPUs are used.
    """
    if machines.gpus_per_node == 0:
        found: Iterable[Split] = _on_cpu(machines)
    elif not machines.serves:
        found = _together(machines)
    else:
        found = _apart(machines, completions)
    return (split for split in found if completions is None or completions % split.num_processes == 0)


def _on_cpu(machines: Machines) -> Iterator[Split]:
    apart = machines.rollout_nodes or 0
    nodes = machines.nodes - apart
    processes = machines.num_processes or nodes
    replicas = (machines.replicas or max(1, apart)) if machines.serves else 0
    if nodes > 0 and processes % nodes == 0 and replicas >= apart:
        yield Split(nodes, processes // nodes, apart, replicas=replicas)


def _together(machines: Machines) -> Iterator[Split]:
    trainers = _trainers(machines, machines.nodes, machines.gpus_per_node)
    if trainers and trainers % machines.tensor_parallel_size == 0:
        yield Split(machines.nodes, trainers, tensor_parallel_size=machines.tensor_parallel_size)


def _apart(machines: Machines, completions: int | None) -> Iterator[Split]:
    if machines.rollout_nodes != 0:
        yield from _whole_nodes(machines, completions)
    if not machines.rollout_nodes:
        yield from _of_each_node(machines)


def _whole_nodes(machines: Machines, completions: int | None) -> Iterator[Split]:
    size, capacity = machines.tensor_parallel_size, machines.capacity
    if machines.num_processes is None and completions is not None and completions % machines.gpus_per_node:
        return
    for count in _rollout_nodes(machines) if capacity else ():
        replicas = count * capacity if machines.replicas is None else machines.replicas
        trainers = _trainers(machines, machines.nodes - count, machines.gpus_per_node)
        if trainers and count <= replicas <= count * capacity:
            yield Split(machines.nodes - count, trainers, count, 0, replicas, size)


def _rollout_nodes(machines: Machines) -> Iterable[int]:
    """Numbers of whole nodes to try, leaving at least one for training."""
    if machines.rollout_nodes is not None:
        return (machines.rollout_nodes,) if machines.rollout_nodes < machines.nodes else ()
    if machines.replicas is not None:
        needed = -(-machines.replicas // machines.capacity)
        return (needed,) if needed < machines.nodes else ()
    return range(1, machines.nodes)


def _of_each_node(machines: Machines) -> Iterator[Split]:
    size, nodes = machines.tensor_parallel_size, machines.nodes
    wanted = None if machines.replicas is None else divmod(machines.replicas, nodes)
    for replicas in range(1, (machines.gpus_per_node - 1) // size + 1):
        if wanted is not None and wanted != (replicas, 0):
            continue
        trainers = _trainers(machines, nodes, machines.gpus_per_node - replicas * size)
        if trainers:
            yield Split(nodes, trainers, 0, replicas * size, nodes * replicas, size)


def _trainers(machines: Machines, nodes: int, available: int) -> int:
    """Training processes on each of `nodes` nodes; 0 if the configured number is impossible."""
    if machines.num_processes is None:
        return available
    each, rest = divmod(machines.num_processes, nodes)
    return each if not rest and each <= available else 0


@dataclass(frozen=True)
class Replica:
    """One vLLM server."""

    node: int
    """Node it runs on, counted from 0 in the order of the allocation."""
    gpus: tuple[int, ...]
    """Its GPUs on that node (CUDA indices); as many as the tensor-parallel size, none on CPU."""


@dataclass(frozen=True)
class Topology:
    """Which process runs where. Trainer nodes come first in the allocation, rollout nodes last."""

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

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def colocated(self) -> bool:
        """Whether every training process has a vLLM engine in it."""
        return self.mode == "colocate"

    @property
    def serves(self) -> bool:
        """Whether vLLM servers generate."""
        return self.mode == "server"


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


def visible_gpus(count: int, visible: str | None) -> list[str]:
    """The first `count` GPUs of those a process may see, by the names `CUDA_VISIBLE_DEVICES` gives them.

    Args:
        visible: that variable; None: all are visible.

    Raises:
        PlanError: there are fewer.
    """
    if visible is None:
        return [str(index) for index in range(count)]
    devices = [device for device in visible.split(",") if device]
    if len(devices) < count:
        raise PlanError(
            f"cluster.gpus_per_node: {count} planned, but CUDA_VISIBLE_DEVICES shows {len(devices)} ({visible!r})",
            hint=f"--set cluster.gpus_per_node={len(devices)}",
        )
    return devices[:count]
