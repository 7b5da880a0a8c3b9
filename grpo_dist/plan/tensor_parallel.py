"""Over how many GPUs one vLLM replica is split."""

from __future__ import annotations

from grpo_dist.plan.architecture import Architecture
from grpo_dist.plan.basis import Basis
from grpo_dist.plan.demand import (
    Demand,
    engine_setup,
    fits,
    group_fits,
    servable_sizes,
    trainer_setup,
    with_concurrency,
)
from grpo_dist.plan.memory import max_concurrency
from grpo_dist.plan.oversize import engine_does_not_fit
from grpo_dist.plan.refusal import Refused, Way
from grpo_dist.plan.split import machines_of, splits


def tensor_parallel_size(basis: Basis) -> int:
    """As stated, or the fewest GPUs that hold the model and a whole group of full-length sequences at a time; where no
    size does, a single sequence. Without vLLM, or for a model that is not known, 1.

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


def _fewest(basis: Basis, architecture: Architecture, sizes: list[int]) -> int:
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


def _fewest_colocated(basis: Basis, architecture: Architecture, possible: list[int]) -> int:
    """Beside a training process with a micro-batch of one. When nothing fits, the last: the trainer says why."""
    group = basis.config.grpo.num_generations
    completions = basis.config.grpo.prompts_per_step * group
    for sequences in (group, 1):
        for size in possible:
            split = next(splits(machines_of(basis.config, size)), None)
            processes = split.num_processes if split else 1
            trainer = trainer_setup(basis, architecture, processes, 0)
            share = completions // processes
            engine = with_concurrency(engine_setup(basis, architecture, size, share), min(sequences, max(1, share)))
            demand = Demand(trainer, engine, basis.config.rollout.enable_sleep_mode)
            if max_concurrency(engine) and fits(basis, demand):
                return size
    return possible[0]


def _not_servable(basis: Basis, architecture: Architecture, stated: int, sizes: list[int]) -> Refused:
    gpus, nearest = basis.config.cluster.gpus_per_node, sorted(sizes, key=lambda size: (abs(size - stated), -size))
    why = (
        f"a node has {gpus} GPU{'' if gpus == 1 else 's'}, and a replica never spans nodes"
        if stated > gpus
        else f"{basis.config.model.name_or_path} has {architecture.num_attention_heads} attention heads, "
        f"{architecture.num_key_value_heads} key-value heads and an MLP of {architecture.intermediate_size}, "
        f"which do not all divide by {stated}"
    )
    return Refused(
        f"rollout.tensor_parallel_size: {stated}, but {why}",
        (Way({"rollout.tensor_parallel_size": size}) for size in (*nearest, "auto")),
        otherwise=f"possible here: {', '.join(map(str, sizes))}",
    )
