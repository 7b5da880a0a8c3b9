"""Which of the possible splits is chosen and why, and over how many GPUs one vLLM replica is split.

Where the machines cannot be split as configured, the nearest splits that work are suggested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import Alternative, PlanRefusal, does_not_divide, largest_divisor
from grpo_dist.plan.does_not_fit import engine_does_not_fit
from grpo_dist.plan.fit import Fit, fit, layout, workload
from grpo_dist.plan.inputs import (
    GpuMemory,
    PlanInputs,
    engine_setup,
    fits,
    group_fits,
    servable_sizes,
    trainer_setup,
    with_concurrency,
)
from grpo_dist.plan.memory import max_concurrency
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.time import StepTime, Workload, balance
from grpo_dist.plan.topology import Machines, Split, machines_of, splits
from grpo_dist.text import plural

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
    if not found and not machines.serves:
        found = list(_smaller_grid(machines, completions))
    yield from (way for _, way in sorted(found, key=lambda way: way[0]))


def _ways_to_split(machines: Machines) -> Iterator[Alternative]:
    found = [way for field in KEYS for way in islice(_ways(machines, field, None), EACH)]
    yield from (way for _, way in sorted(found, key=lambda way: way[0]))
    if machines.num_processes is not None:
        one = "one on each training GPU" if machines.gpus_per_node else "one on each node"
        yield Alternative({"distributed.num_processes": None}, one)
    if machines.serves and machines.gpus_per_node:
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
    if machines.serves and gpus:
        return _why_not_apart(machines)
    if machines.rollout_nodes:
        return f"rollout.nodes: {machines.rollout_nodes} nodes cannot be set apart on CPU; servers share the nodes"
    if stated is not None and gpus and stated > nodes * gpus:
        return (
            f"distributed.num_processes: {stated} processes are set, but {machines} = {nodes * gpus}; each GPU runs one"
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
        f"processes, a replica is on one node, and either whole nodes generate or the same number of GPUs on each"
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


TRIED = 8
"""Number of fastest splits checked against the memory, if that depends on the number of training processes."""
USUAL_SHARE = 4
"""One in this many GPUs generates if the model is unknown."""


class Chosen(NamedTuple):
    split: Split
    reason: str
    fitted: Fit | None
    """None if the model is unknown."""


def choose(basis: PlanInputs, machines: Machines) -> Chosen:
    """The configured split; if it is left open, the fastest that fits.

    Raises:
        PlanError: there is none, none divides the step's completions, or none fits.
    """
    grpo = basis.config.grpo
    completions = grpo.prompts_per_step * grpo.num_generations
    if not any(splits(machines, completions)):
        raise _refusal(basis, machines, completions)
    if machines.is_open:
        return _fastest(basis, machines, completions)
    split = min(splits(machines, completions), key=lambda split: _idle(machines, split))
    fitted = None if basis.architecture is None else fit(basis, basis.architecture, split, completions)
    return Chosen(split, _stated(machines, split), fitted)


def _refusal(basis: PlanInputs, machines: Machines, completions: int) -> PlanRefusal:
    counts = list(dict.fromkeys(split.num_processes for split in splits(machines)))
    if not counts:
        return no_split(machines)
    grpo, where = basis.config.grpo, str(machines)
    hardware = ways_to_divide(machines, completions)
    return does_not_divide(grpo.prompts_per_step, grpo.num_generations, counts, hardware=hardware, where=where)


def _fastest(basis: PlanInputs, machines: Machines, completions: int) -> Chosen:
    if basis.architecture is None:
        total = machines.nodes * machines.gpus_per_node
        split = min(splits(machines, completions), key=lambda split: abs(split.rollout_gpus * USUAL_SHARE - total))
        why = f"about one GPU in {USUAL_SHARE} generates, because the model's shape is unknown"
        return Chosen(split, f"{_numbers(split)}: {why}", None)
    limit = basis.config.distributed.max_per_device_train_batch_size
    first = _first_that_fits(basis, basis.architecture, machines, limit)
    return _first_that_fits(basis, basis.architecture, machines, first.fitted.micro_batch)


def _first_that_fits(basis: PlanInputs, architecture: Architecture, machines: Machines, micro_batch: int) -> Chosen:
    """The fastest with this micro-batch. The memory decides the micro-batch, so this runs twice."""
    refused: PlanError | None = None
    work = workload(basis, architecture, micro_batch)
    for number, (split, reason) in enumerate(_by_time(basis, work, machines)):
        try:
            fitted = fit(basis, architecture, split, work.completions)
        except PlanError as error:
            refused = refused or error
            if number == TRIED or basis.config.distributed.strategy == "ddp":
                break
            continue
        return Chosen(split, reason if refused is None else f"{reason}; faster splits do not fit", fitted)
    raise refused or no_split(machines)


def _by_time(basis: PlanInputs, work: Workload, machines: Machines) -> Iterator[tuple[Split, str]]:
    """The open splits, fastest first."""
    engine = engine_setup(basis, work.architecture, machines.tensor_parallel_size, 1)
    if not max_concurrency(engine):
        raise engine_does_not_fit(basis, engine, [])
    first = next(splits(machines, work.completions))
    found = balance(work, layout(basis, first, engine), basis.efficiencies)
    allowed = {_gpus(split): split for split in reversed(list(splits(machines, work.completions)))}
    for time in found.candidates:
        split = allowed.get((time.layout.trainer_gpus, time.layout.rollout_gpus))
        if split is not None:
            yield split, found.reason if time is found.best else f"{_numbers(split)}: {_seconds(time)}"


def _stated(machines: Machines, split: Split) -> str:
    if machines.serves:
        return f"{_numbers(split)}, as stated"
    shared = "GPU" if machines.gpus_per_node else "CPUs"
    generating = "generates too" if machines.mode == "transformers" else f"shares its {shared} with a vLLM engine"
    if split.num_processes == 1:
        return f"one process on {'one GPU' if machines.gpus_per_node else 'CPU'}, which {generating}"
    return f"{split.num_processes} processes train on {machines}; each {generating}"


def _numbers(split: Split) -> str:
    if split.rollout_nodes:
        where = plural(split.rollout_nodes, "whole node")
    elif split.rollout_gpus_per_node:
        where = f"{plural(split.rollout_gpus_per_node, 'GPU')} of each node"
    else:
        where = "the same CPUs"
    training = "1 process trains" if split.num_processes == 1 else f"{split.num_processes} processes train"
    generating = "1 replica generates" if split.replicas == 1 else f"{split.replicas} replicas generate"
    return f"{training}, {generating} on {where}"


def _seconds(time: StepTime) -> str:
    training = time.part("training") + time.part("scoring")
    return f"{time.seconds:.1f} s per step (generation {time.part('generation'):.1f} s, training {training:.1f} s)"


def _gpus(split: Split) -> tuple[int, int]:
    """Numbers of GPUs that train and that generate."""
    return split.num_processes, split.rollout_gpus


def _idle(machines: Machines, split: Split) -> int:
    return machines.nodes * machines.gpus_per_node - split.num_processes - split.rollout_gpus


def tensor_parallel_size(basis: PlanInputs) -> int:
    """As configured, or the fewest GPUs that hold the model and a whole group of full-length sequences at a time; if no
    size does, a single sequence. 1 without vLLM or for an unknown model.

    Raises:
        PlanError: vLLM cannot split the model so, or no size holds it.
    """
    stated, cluster = basis.config.rollout.tensor_parallel_size, basis.config.cluster
    if basis.architecture is None or not basis.config.rollout.uses_vllm or not cluster.gpus_per_node:
        return 1 if stated == "auto" else stated
    sizes = servable_sizes(basis.architecture, cluster.gpus_per_node)
    if stated == "auto":
        return _fewest(basis, basis.architecture, sizes)
    if stated not in sizes:
        raise _not_servable(basis, basis.architecture, stated, sizes)
    return stated


def _fewest(basis: PlanInputs, architecture: Architecture, sizes: list[int]) -> int:
    possible = [size for size in sizes if any(splits(machines_of(basis.config, size)))] or sizes[:1]
    if basis.config.rollout.colocated:
        return _fewest_colocated(basis, architecture, possible)
    engines = {size: engine_setup(basis, architecture, size, 0) for size in possible}
    for size, engine in engines.items():
        if group_fits(engine, basis.config.grpo.num_generations):
            return size
    for size, engine in engines.items():
        if max_concurrency(engine):
            return size
    raise engine_does_not_fit(basis, engines[possible[-1]], possible)


def _fewest_colocated(basis: PlanInputs, architecture: Architecture, possible: list[int]) -> int:
    """Beside a training process with a micro-batch of one. If nothing fits, the last: the trainer then says why."""
    group = basis.config.grpo.num_generations
    completions = basis.config.grpo.prompts_per_step * group
    for sequences in (group, 1):
        for size in possible:
            split = next(splits(machines_of(basis.config, size)), None)
            processes = split.num_processes if split else 1
            trainer = trainer_setup(basis, architecture, processes, 0)
            share = completions // processes
            engine = with_concurrency(engine_setup(basis, architecture, size, share), min(sequences, max(1, share)))
            demand = GpuMemory(trainer, engine, basis.config.rollout.enable_sleep_mode)
            if max_concurrency(engine) and fits(basis, demand):
                return size
    return possible[0]


def _not_servable(basis: PlanInputs, architecture: Architecture, stated: int, sizes: list[int]) -> PlanRefusal:
    gpus, nearest = basis.config.cluster.gpus_per_node, sorted(sizes, key=lambda size: (abs(size - stated), -size))
    why = (
        f"a node has {gpus} GPU{'' if gpus == 1 else 's'}, and a replica never spans nodes"
        if stated > gpus
        else f"{basis.config.model.name_or_path} has {architecture.num_attention_heads} attention heads, "
        f"{architecture.num_key_value_heads} key-value heads and an MLP of {architecture.intermediate_size}, "
        f"which do not all divide by {stated}"
    )
    return PlanRefusal(
        f"rollout.tensor_parallel_size: {stated}, but {why}",
        (Alternative({"rollout.tensor_parallel_size": size}) for size in (*nearest, "auto")),
        otherwise=f"possible here: {', '.join(map(str, sizes))}",
    )
