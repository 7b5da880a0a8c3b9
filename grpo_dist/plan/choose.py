"""Which of the possible splits is chosen and why, and over how many GPUs one vLLM replica is split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from grpo_dist.errors import PlanError
from grpo_dist.plan.batch import Alternative, PlanRefusal, does_not_divide
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
from grpo_dist.plan.nearest import no_split, ways_to_divide
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.time import StepTime, Workload, balance
from grpo_dist.plan.topology import Machines, Split, machines_of, splits
from grpo_dist.text import plural

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
        why = f"about one GPU in {USUAL_SHARE} generates, for want of the model's shape"
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
    if machines.mode == "server":
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
    if basis.architecture is None or basis.config.rollout.backend != "vllm" or not cluster.gpus_per_node:
        return 1 if stated == "auto" else stated
    sizes = servable_sizes(basis.architecture, cluster.gpus_per_node)
    if stated == "auto":
        return _fewest(basis, basis.architecture, sizes)
    if stated not in sizes:
        raise _not_servable(basis, basis.architecture, stated, sizes)
    return stated


def _fewest(basis: PlanInputs, architecture: Architecture, sizes: list[int]) -> int:
    possible = [size for size in sizes if any(splits(machines_of(basis.config, size)))] or sizes[:1]
    if basis.config.rollout.mode == "colocate":
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
