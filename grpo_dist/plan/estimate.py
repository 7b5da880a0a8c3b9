"""A step's seconds on a split of the machines, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING, Any

from grpo_dist.config import RunConfig
from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.basis import Basis
from grpo_dist.plan.contradictions import corrects_sampling, extra
from grpo_dist.plan.demand import lora_of
from grpo_dist.plan.memory import RolloutSetup, kv_cache_bytes
from grpo_dist.plan.split import Split
from grpo_dist.plan.timing import Layout, Padding, StepTime, Workload, step_time

if TYPE_CHECKING:
    from grpo_dist.plan.fitting import Fit


def estimate(basis: Basis, architecture: Architecture, split: Split, fitted: Fit) -> StepTime:
    """Seconds of one optimizer step.

    Raises:
        PlanError: see `step_time`.
    """
    work = workload(basis, architecture, fitted.micro_batch)
    return step_time(work, layout(basis, split, fitted.engine), basis.efficiencies)


def workload(basis: Basis, architecture: Architecture, micro_batch: int) -> Workload:
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


def layout(basis: Basis, split: Split, engine: RolloutSetup | None) -> Layout:
    """The split as the time estimate sees it; on CPU a process stands for a GPU."""
    cluster, rollout = basis.config.cluster, basis.config.rollout
    return Layout(
        gpu=basis.gpu,
        intra=basis.intra,
        inter=basis.inter,
        nodes=cluster.nodes,
        gpus_per_node=cluster.gpus_per_node or split.trainers_per_node,
        trainer_gpus=split.num_processes,
        rollout_gpus=split.rollout_gpus,
        backend=rollout.backend,
        tensor_parallel=split.tensor_parallel_size,
        gpu_memory_utilization=engine.gpu_memory_utilization if engine else 0.9,
        kv_pool_bytes=None if engine is None else kv_cache_bytes(engine),
        max_num_seqs=RolloutSetup.max_num_seqs if engine is None else engine.max_num_seqs,
        sleeps=rollout.enable_sleep_mode,
        partitioned=basis.config.distributed.strategy in ("zero3", "fsdp2"),
        sync=rollout.sync,
    )


def time_as_json(basis: Basis, time: StepTime, comparison: dict[str, Any] | None) -> dict[str, Any]:
    """Parts of a step, and what the run comes to when its steps are stated; GPU-hours are of
    all GPUs of the nodes, idle ones too, and None on CPU.

    Args:
        comparison: of base and trained model, after the last step; None where none is made or timed.
    """
    cluster, stated = basis.config.cluster, basis.config.grpo.max_steps
    steps = stated if stated > 0 else None
    gpus = cluster.nodes * cluster.gpus_per_node
    gpu_hours = gpus * time.seconds / 3600 if gpus else None
    hours = None if steps is None else steps * time.seconds / 3600
    after = comparison["hours"] if comparison else 0.0
    ours = basis.assumptions()
    theirs = (one for one in time.assumptions() if "tokens" not in one.name)
    return {
        **time.to_dict(),
        "steps": steps,
        "hours": hours,
        "gpu_hours_per_step": gpu_hours,
        "gpu_hours": steps * gpu_hours if steps and gpu_hours is not None else None,
        "comparison": comparison,
        "run_hours": None if hours is None else hours + after,
        "run_gpu_hours": None if hours is None or not gpus else gpus * (hours + after),
        "assumptions": [asdict(assumption) for assumption in (*ours, *theirs)],
    }


def nodes_of_a_group(group: int, completions: int, trainer_nodes: int) -> int:
    """Nodes over which the completions of one prompt are trained."""
    return min(trainer_nodes, ceil(group * trainer_nodes / completions))


def _padding(config: RunConfig) -> Padding:
    """The conditions of `training/micro_batches.py`."""
    grpo = config.grpo
    if grpo.loss_type == "vespo":
        return "none"
    entropy = extra(config, "entropy_coef", 0.0) or extra(config, "use_adaptive_entropy", False)
    token_means = grpo.loss_type == "bnpo" or entropy or extra(config, "top_entropy_quantile", 1.0) < 1.0
    return "batch" if token_means else "step"


def _scoring_forwards(config: RunConfig) -> int:
    """One for the old log-probabilities, where completions serve several steps or the loss's own forward pass cannot
    give vLLM's correction (the conditions of `training/scoring.py`); one for the reference model."""
    grpo = config.grpo
    before_loss = grpo.loss_type == "vespo" or extra(config, "use_liger_kernel", False)
    old = grpo.num_iterations > 1 or (corrects_sampling(config) and before_loss)
    return int(old) + int(grpo.beta > 0)
