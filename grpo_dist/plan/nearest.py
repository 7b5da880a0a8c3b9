"""Suggestions when the machines cannot be split as configured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from grpo_dist.plan.batch import Alternative, PlanRefusal, largest_divisor
from grpo_dist.plan.topology import Machines, Split, splits

KEYS = {
    "num_processes": "distributed.num_processes",
    "nodes": "cluster.nodes",
    "gpus_per_node": "cluster.gpus_per_node",
    "replicas": "rollout.replicas",
    "rollout_nodes": "rollout.nodes",
    "tensor_parallel_size": "rollout.tensor_parallel_size",
}
"""Field of `Machines` → the setting of that value."""
FARTHEST = 16_384
"""Values tried on either side."""
EACH = 4
"""Values of one setting that are offered."""


def no_split(machines: Machines) -> PlanRefusal:
    """Why the machines cannot be split at all, and the nearest alternatives."""
    return PlanRefusal(_why(machines), _ways_to_split(machines))


def ways_to_divide(machines: Machines, completions: int) -> Iterator[Alternative]:
    """Changes of the machines or their split with which the training processes divide the completions."""
    found = [way for field in KEYS for way in islice(_ways(machines, field, completions), 1)]
    if not found and machines.mode != "server":
        found = list(_smaller_grid(machines, completions))
    yield from (way for _, way in sorted(found, key=lambda way: way[0]))


def _ways_to_split(machines: Machines) -> Iterator[Alternative]:
    found = [way for field in KEYS for way in islice(_ways(machines, field, None), EACH)]
    yield from (way for _, way in sorted(found, key=lambda way: way[0]))
    if machines.num_processes is not None:
        one = "one on each training GPU" if machines.gpus_per_node else "one on each node"
        yield Alternative({"distributed.num_processes": None}, one)
    if machines.mode == "server" and machines.gpus_per_node:
        auto = {KEYS[field]: "auto" for field in ("replicas", "rollout_nodes") if getattr(machines, field) is not None}
        yield Alternative({"rollout.mode": "colocate", **auto}, "every GPU trains and generates")


def _ways(machines: Machines, field: str, completions: int | None) -> Iterator[tuple[int, Alternative]]:
    """(distance, what to set) for other values of one configured field, nearest first."""
    value = getattr(machines, field)
    stated = value is not None and (value > 0 or field == "rollout_nodes")
    follows = machines.num_processes is not None and field in ("nodes", "gpus_per_node")
    on_cpu = not machines.gpus_per_node and field in ("replicas", "tensor_parallel_size")
    if not stated or follows or on_cpu:
        return
    if field == "num_processes" and machines.gpus_per_node:
        value = min(value, machines.nodes * machines.gpus_per_node + 1)
    for changed in _outward(machines, field, value, most=16 if completions is None else value):
        split = next(splits(changed, completions), None)
        if split is not None:
            distance = abs(_size(changed) - _size(machines)) or abs(getattr(changed, field) - value)
            yield distance, Alternative({KEYS[field]: getattr(changed, field)}, _then(split, completions))


def _smaller_grid(machines: Machines, completions: int) -> Iterator[tuple[int, Alternative]]:
    """Fewer nodes and fewer GPUs of each, the most processes first."""
    grids = [
        (largest_divisor(completions // gpus, machines.nodes), gpus)
        for gpus in range(1, machines.gpus_per_node)
        if completions % gpus == 0 and gpus % machines.tensor_parallel_size == 0
    ]
    if grids:
        nodes, gpus = max(grids, key=lambda grid: (grid[0] * grid[1], grid[1]))
        split = Split(nodes, gpus)
        yield 0, Alternative({"cluster.nodes": nodes, "cluster.gpus_per_node": gpus}, _then(split, completions))


def _then(split: Split, completions: int | None) -> str:
    processes = split.num_processes
    if completions is None:
        return "1 process trains" if processes == 1 else f"{processes} processes train"
    one = "all on 1 process" if processes == 1 else f"{completions // processes} on each of {processes} processes"
    return f"the same {completions} completions, {one}"


def _why(machines: Machines) -> str:
    stated, nodes, gpus = machines.num_processes, machines.nodes, machines.gpus_per_node
    if machines.mode == "server" and gpus:
        return _why_not_apart(machines)
    if machines.rollout_nodes:
        return f"rollout.nodes: {machines.rollout_nodes} nodes cannot be set apart on CPU; servers share the nodes"
    if stated is not None and gpus and stated > nodes * gpus:
        return (
            f"distributed.num_processes: {stated} processes stated, but {machines} = {nodes * gpus}; each GPU runs one"
        )
    if stated is not None and stated % nodes:
        return f"distributed.num_processes: {stated} processes do not share out evenly over {nodes} nodes"
    return (
        f"rollout.tensor_parallel_size: colocated engines of {machines.tensor_parallel_size} GPUs do not divide the "
        f"{(stated or nodes * gpus) // nodes} training GPUs of a node"
    )


def _why_not_apart(machines: Machines) -> str:
    nodes, total, size = machines.nodes, machines.nodes * machines.gpus_per_node, machines.tensor_parallel_size
    if size > machines.gpus_per_node:
        return (
            f"rollout.tensor_parallel_size: a replica of {size} GPUs does not fit a node of {machines.gpus_per_node}, "
            f"and never spans nodes"
        )
    if total <= size:
        there = "the only GPU" if total == 1 else f"{size} of {total} GPUs"
        return f"rollout.mode: a server takes {there}, none is left to train"
    if machines.rollout_nodes and machines.rollout_nodes >= nodes:
        only = "the only node generates" if nodes == 1 else f"{machines.rollout_nodes} of {nodes} nodes generate"
        return f"rollout.nodes: {only}, none is left to train"
    stated = [
        f"{key}={getattr(machines, field)}"
        for field, key in KEYS.items()
        if field not in ("nodes", "gpus_per_node") and getattr(machines, field) is not None
    ]
    return (
        f"{machines} cannot be shared out with {', '.join(stated)}: each training node runs the same number of "
        f"processes, a replica lies on one node, and either whole nodes generate or the same number of GPUs on each"
    )


def _outward(machines: Machines, field: str, value: int, *, most: int) -> Iterator[Machines]:
    """The machines with the field at increasingly distant values, the smaller first; GPUs of a node up to `most`."""
    least = 0 if field == "rollout_nodes" else 1
    for distance in range(1, FARTHEST):
        if value - distance >= least:
            yield replace(machines, **{field: value - distance})
        elif distance > 2 * max(value, 8):
            return
        if field != "gpus_per_node" or value + distance <= most:
            yield replace(machines, **{field: value + distance})


def _size(machines: Machines) -> int:
    return machines.num_processes or machines.nodes * max(1, machines.gpus_per_node)
