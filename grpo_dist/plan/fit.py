"""The largest micro-batch and engine that fit a GPU, or a refusal; and a split's seconds per step, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any

from grpo_dist.config import RunConfig
from grpo_dist.config.base import seconds_of
from grpo_dist.plan.batch import largest_divisor
from grpo_dist.plan.checks import corrects_sampling, extra
from grpo_dist.plan.does_not_fit import engine_does_not_fit, engine_takes_too_much, trainer_does_not_fit
from grpo_dist.plan.inputs import (
    SERVER_UTILIZATION,
    GpuMemory,
    PlanInputs,
    engine_setup,
    engine_utilization,
    fits,
    largest,
    lora_of,
    trainer_setup,
    with_concurrency,
)
from grpo_dist.plan.memory import MemoryBreakdown, RolloutSetup, kv_cache_bytes, max_concurrency, rollout_memory
from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.time import Layout, Padding, StepTime, Workload, step_time
from grpo_dist.plan.time.step import generation
from grpo_dist.plan.topology import Split


def estimate(basis: PlanInputs, architecture: Architecture, split: Split, fitted: Fit) -> StepTime:
    """Seconds of one optimizer step.

    Raises:
        PlanError: see `step_time`.
    """
    work = workload(basis, architecture, fitted.micro_batch)
    return step_time(work, layout(basis, split, fitted.engine), basis.efficiencies)


def workload(basis: PlanInputs, architecture: Architecture, micro_batch: int) -> Workload:
    config = basis.config
    return Workload(
        architecture=architecture,
        prompts_per_step=config.grpo.prompts_per_step,
        num_generations=config.grpo.num_generations,
        lengths=basis.lengths,
        trainable_parameters=lora_of(config).parameters(architecture),
        micro_batch=micro_batch,
        gradient_checkpointing=config.grpo.gradient_checkpointing,
        scoring_forwards=_scoring_forwards(config),
        num_iterations=config.grpo.num_iterations,
        padding=_padding(config),
        eager=config.model.attn_implementation == "eager",
    )


def layout(basis: PlanInputs, split: Split, engine: RolloutSetup | None) -> Layout:
    """The split as input of the time estimate; on CPU a process counts as a GPU."""
    cluster, rollout = basis.config.cluster, basis.config.rollout
    return Layout(
        gpu=basis.gpu,
        intra=basis.intra,
        inter=basis.inter,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node or split.trainers_per_node,
        trainer_gpus=split.num_processes,
        rollout_gpus=split.rollout_gpus,
        uses_vllm=rollout.uses_vllm,
        tensor_parallel=split.tensor_parallel_size,
        gpu_memory_utilization=engine.gpu_memory_utilization if engine else 0.9,
        kv_pool_bytes=None if engine is None else kv_cache_bytes(engine),
        max_num_seqs=RolloutSetup.max_num_seqs if engine is None else engine.max_num_seqs,
        max_staleness=0 if split.rollout_gpus == 0 else rollout.max_staleness,
        sleeps=rollout.enable_sleep_mode,
        partitioned=basis.config.distributed.strategy in ("zero3", "fsdp2"),
        syncs_adapter=rollout.syncs_adapter,
    )


def time_as_json(basis: PlanInputs, time: StepTime, comparison: dict[str, Any] | None) -> dict[str, Any]:
    """Parts of a step, and the totals of the run if its steps are set; GPU-hours count all GPUs of the nodes, including
    idle ones, and are None on CPU.

    Args:
        comparison: of base and trained model, after the last step; None if there is none or its time is unknown.
    """
    cluster, stated = basis.config.cluster, basis.config.grpo.max_steps
    steps = stated if stated > 0 else None
    gpus = cluster.nodes * cluster.gpus_per_node
    gpu_hours = gpus * time.seconds / 3600 if gpus else None
    limit = inf if (most := basis.config.grpo.max_time) is None else seconds_of(most)
    hours = None if steps is None else min(steps * time.seconds, limit) / 3600
    after = comparison["hours"] if comparison else 0.0
    ours = basis.assumptions()
    theirs = (one for one in time.assumptions() if "tokens" not in one.name)
    return {
        **time.to_dict(),
        "steps": steps,
        "hours": hours,
        "gpu_hours_per_step": gpu_hours,
        "gpu_hours": gpus * hours if hours is not None and gpus else None,
        "comparison": comparison,
        "run_hours": None if hours is None else hours + after,
        "run_gpu_hours": None if hours is None or not gpus else gpus * (hours + after),
        "assumptions": [asdict(assumption) for assumption in (*ours, *theirs)],
    }


def nodes_of_a_group(group: int, completions: int, trainer_nodes: int) -> int:
    """Nodes over which the completions of one prompt are trained."""
    return min(trainer_nodes, ceil(group * trainer_nodes / completions))


def _padding(config: RunConfig) -> Padding:
    """The conditions of `training/trainer/micro_batches.py`."""
    grpo = config.grpo
    if grpo.loss_type == "vespo":
        return "none"
    entropy = extra(config, "entropy_coef", 0.0) or extra(config, "use_adaptive_entropy", False)
    token_means = grpo.loss_type == "bnpo" or entropy or extra(config, "top_entropy_quantile", 1.0) < 1.0
    return "batch" if token_means else "step"


def _scoring_forwards(config: RunConfig) -> int:
    """One for the old log-probabilities, where completions serve several steps or the loss's own forward pass cannot
    give vLLM's correction (the conditions of `training/trainer/deferred_scoring.py`); one for the reference model."""
    grpo = config.grpo
    before_loss = grpo.loss_type == "vespo" or extra(config, "use_liger_kernel", False)
    old = grpo.num_iterations > 1 or (corrects_sampling(config) and before_loss)
    return int(old) + int(grpo.beta > 0)


ON_GPUS_ONLY = ("CUDA context", "NCCL buffers")


@dataclass(frozen=True)
class Fit:
    """The memory of every GPU of the split."""

    micro_batch: int
    """Completions per forward and backward pass: divides a process's share."""
    most: int
    """Completions that fit at a time, even if they do not divide the share."""
    roles: tuple[MemoryBreakdown, ...]
    """One for each kind of GPU in use."""
    engine: RolloutSetup | None
    """vLLM's share of a generating GPU."""


def fit(basis: PlanInputs, architecture: Architecture, split: Split, completions: int) -> Fit:
    """The largest micro-batch that divides a process's share and fits.

    Raises:
        PlanError: not even one completion at a time fits; the hint says what would.
    """
    config, on_gpus = basis.config, basis.config.cluster.gpus_per_node > 0
    share = completions // split.num_processes
    limit = min(share, config.distributed.max_per_device_train_batch_size)
    trainer = trainer_setup(basis, architecture, split.num_processes, share)
    if not on_gpus:
        micro_batch = largest_divisor(share, limit)
        return Fit(micro_batch, limit, (_on_cpu(GpuMemory(trainer).memory(micro_batch)),), None)
    engine = None
    if config.rollout.uses_vllm:
        engine = engine_setup(basis, architecture, split.tensor_parallel_size, share)
    if split.replicas and engine is not None:
        most = _most(basis, GpuMemory(trainer), limit)
        micro_batch = largest_divisor(share, most)
        return Fit(micro_batch, most, (GpuMemory(trainer).memory(micro_batch), _served(basis, engine)), engine)
    demand = _colocated(basis, GpuMemory(trainer, engine, config.rollout.enable_sleep_mode))
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


def _colocated(basis: PlanInputs, demand: GpuMemory) -> GpuMemory:
    """With the engine at its configured size, or the smallest that holds a group, or else one sequence."""
    if demand.engine is None:
        return demand
    if basis.config.rollout.gpu_memory_utilization != "auto":
        _served(basis, demand.engine)
        return demand
    group = with_concurrency(demand.engine, basis.config.grpo.num_generations)
    wanted = replace(demand, engine=group)
    return wanted if max_concurrency(group) and fits(basis, wanted) else demand.least()


def _most(basis: PlanInputs, demand: GpuMemory, limit: int) -> int:
    """Completions that fit at a time, at most the limit."""
    gpu_bytes = int(basis.gpu.memory)
    engine_works = demand.engine is None or max_concurrency(demand.engine)
    most = largest(lambda size: demand.memory(size).fits(gpu_bytes), 1, limit) if engine_works else 0
    if not most:
        raise trainer_does_not_fit(basis, demand)
    return most


def _served(basis: PlanInputs, engine: RolloutSetup) -> MemoryBreakdown:
    if not max_concurrency(engine):
        raise engine_does_not_fit(basis, engine, [])
    memory = rollout_memory(engine)
    if engine.gpu_memory_utilization > SERVER_UTILIZATION and not memory.fits(int(basis.gpu.memory)):
        raise engine_takes_too_much(basis, engine, memory)
    return memory


def _on_cpu(memory: MemoryBreakdown) -> MemoryBreakdown:
    kept = tuple(component for component in memory.resident if component.name not in ON_GPUS_ONLY)
    return replace(memory, resident=kept)
