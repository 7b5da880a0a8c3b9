"""The largest micro-batch and engine that fit a GPU, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, replace

from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.basis import Basis
from grpo_dist.plan.demand import (
    Demand,
    engine_setup,
    engine_utilization,
    fits,
    largest,
    trainer_setup,
    with_concurrency,
)
from grpo_dist.plan.divisors import largest_divisor
from grpo_dist.plan.estimate import layout, workload
from grpo_dist.plan.memory import MemoryBreakdown, RolloutSetup, max_concurrency, rollout_memory
from grpo_dist.plan.oversize import engine_does_not_fit, trainer_does_not_fit
from grpo_dist.plan.split import Split
from grpo_dist.plan.timing.step import generation

ON_GPUS_ONLY = ("CUDA context", "NCCL buffers")


@dataclass(frozen=True)
class Fit:
    """What every GPU of the split holds."""

    micro_batch: int
    """Completions per forward and backward pass: divides a process's share."""
    most: int
    """Completions that fit at a time, whether they divide the share or not."""
    roles: tuple[MemoryBreakdown, ...]
    """One for each kind of GPU in use."""
    engine: RolloutSetup | None
    """vLLM's share of a generating GPU."""


def fit(basis: Basis, architecture: Architecture, split: Split, completions: int) -> Fit:
    """The largest micro-batch that divides a process's share and fits.

    Raises:
        PlanError: not even one completion at a time fits; what would is in the hint.
    """
    config, on_gpus = basis.config, basis.config.cluster.gpus_per_node > 0
    share = completions // split.num_processes
    limit = min(share, config.distributed.max_per_device_train_batch_size)
    trainer = trainer_setup(basis, architecture, split.num_processes, share)
    if not on_gpus:
        micro_batch = largest_divisor(share, limit)
        return Fit(micro_batch, limit, (_on_cpu(Demand(trainer).memory(micro_batch)),), None)
    engine = None
    if config.rollout.backend == "vllm":
        engine = engine_setup(basis, architecture, split.tensor_parallel_size, share)
    if split.replicas and engine is not None:
        most = _most(basis, Demand(trainer), limit)
        micro_batch = largest_divisor(share, most)
        return Fit(micro_batch, most, (Demand(trainer).memory(micro_batch), _served(basis, engine)), engine)
    demand = _colocated(basis, Demand(trainer, engine, config.rollout.enable_sleep_mode))
    most = _most(basis, demand, limit)
    micro_batch = largest_divisor(share, most)
    if demand.engine is not None and config.rollout.gpu_memory_utilization == "auto":
        work = workload(basis, architecture, micro_batch)
        utilization = engine_utilization(
            demand,
            micro_batch,
            lambda engine: generation(work, layout(basis, split, engine), basis.efficiencies).seconds,
        )
        demand = replace(demand, engine=replace(demand.engine, gpu_memory_utilization=utilization))
    return Fit(micro_batch, most, (demand.memory(micro_batch),), demand.engine)


def _colocated(basis: Basis, demand: Demand) -> Demand:
    """With the engine at its stated size, or at the least that holds a group, or else one sequence."""
    if demand.engine is None:
        return demand
    if basis.config.rollout.gpu_memory_utilization != "auto":
        _served(basis, demand.engine)
        return demand
    group = with_concurrency(demand.engine, basis.config.grpo.num_generations)
    wanted = replace(demand, engine=group)
    return wanted if max_concurrency(group) and fits(basis, wanted) else demand.least()


def _most(basis: Basis, demand: Demand, limit: int) -> int:
    """Completions that fit at a time, at most the limit."""
    gpu_bytes = int(basis.gpu.memory)
    engine_works = demand.engine is None or max_concurrency(demand.engine)
    most = largest(lambda size: demand.memory(size).fits(gpu_bytes), 1, limit) if engine_works else 0
    if not most:
        raise trainer_does_not_fit(basis, demand)
    return most


def _served(basis: Basis, engine: RolloutSetup) -> MemoryBreakdown:
    if not max_concurrency(engine):
        raise engine_does_not_fit(basis, engine, [])
    return rollout_memory(engine)


def _on_cpu(memory: MemoryBreakdown) -> MemoryBreakdown:
    kept = tuple(component for component in memory.resident if component.name not in ON_GPUS_ONLY)
    return replace(memory, resident=kept)
