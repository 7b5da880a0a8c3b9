"""A model that does not fit: the numbers, and changes that may make it fit. `plan.batch` finds out which do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from grpo_dist.plan.batch import Alternative, PlanRefusal
from grpo_dist.plan.inputs import GpuMemory, PlanInputs, fits, largest, servable_sizes
from grpo_dist.plan.memory import MemoryBreakdown, RolloutSetup, max_concurrency, rollout_memory
from grpo_dist.plan.specs.hardware import GPUS
from grpo_dist.plan.specs.lookup import KNOWN, OWNERS
from grpo_dist.text import gib

MOST_PROCESSES = 1024
USUAL_NODE = 8
"""GPUs; beyond them more nodes are suggested."""
LENGTH_STEP = 64
"""Tokens."""
SMALLER = "no change of one to three settings makes it fit: take a smaller model, or larger GPUs"
MEMORY = "memory"
"""Kind of refusal."""


def trainer_does_not_fit(basis: PlanInputs, demand: GpuMemory) -> PlanRefusal:
    """Not even one completion at a time."""
    least, beside = demand.least(), ""
    if demand.engine is not None:
        beside = " beside a vLLM engine for one sequence"
    if demand.engine is not None and basis.config.rollout.gpu_memory_utilization != "auto":
        least = replace(least, engine=demand.engine)
        beside = f" beside a vLLM engine with rollout.gpu_memory_utilization {demand.engine.gpu_memory_utilization:g}"
    memory = least.memory()
    part = memory.largest()
    return PlanRefusal(
        f"{basis.config.model.name_or_path} does not fit: {_what(basis, demand, memory)}{beside} needs "
        f"{gib(memory.total)}, margin included, and one {basis.gpu.name} has {gib(basis.gpu.memory)}; "
        f"the most is {part.name}: {gib(part.bytes)} ({part.source})",
        _ways(basis, _shorter(basis, lambda tokens: fits(basis, _with_completion(demand, tokens).least())), demand),
        otherwise=SMALLER,
        kind=MEMORY,
    )


def engine_does_not_fit(basis: PlanInputs, engine: RolloutSetup, tried: list[int]) -> PlanRefusal:
    """A vLLM replica whose KV cache cannot hold one sequence.

    Args:
        tried: tensor-parallel sizes for which it cannot, in ascending order.
    """
    size, share = engine.tensor_parallel_size, engine.gpu_memory_utilization
    weights = next(part for part in rollout_memory(engine).components if part.name == "weights")
    others = f" (nor on {', '.join(map(str, tried[:-1]))})" if len(tried) > 1 else ""
    on = f"{size} GPU{'' if size == 1 else 's'}{others}"

    def holds(tokens: int) -> bool:
        return max_concurrency(replace(engine, max_model_len=basis.prompt_tokens + tokens)) > 0

    return PlanRefusal(
        f"{basis.config.model.name_or_path} does not fit: a vLLM replica on {on} with gpu_memory_utilization {share:g} "
        f"has {gib(share * basis.gpu.memory)} of each {basis.gpu.name}, holds {gib(weights.bytes)} of weights there, "
        f"and has no room for one sequence of {engine.max_model_len:,} tokens",
        _ways(basis, _shorter(basis, holds), None),
        otherwise=SMALLER,
        kind=MEMORY,
    )


def engine_takes_too_much(basis: PlanInputs, engine: RolloutSetup, memory: MemoryBreakdown) -> PlanRefusal:
    """A utilization that leaves less than what is gone before vLLM begins: it then refuses to start."""
    most = int(100 * (engine.gpu_memory_utilization + (basis.gpu.memory - memory.total) / basis.gpu.memory)) / 100
    setting = "rollout.gpu_memory_utilization"
    return PlanRefusal(
        f"{setting}: {engine.gpu_memory_utilization:g} of {gib(basis.gpu.memory)} and what CUDA and NCCL take before "
        f"vLLM begins are {gib(memory.total)}, more than one {basis.gpu.name} has",
        (Alternative({setting: most}), Alternative({setting: "auto"})),
    )


def _what(basis: PlanInputs, demand: GpuMemory, least: MemoryBreakdown) -> str:
    tokens = f"{basis.prompt_tokens:,} + {basis.completion_tokens:,} tokens"
    if least.peak_phase.name == "generate":
        count = demand.trainer.generation_batch
        return f"generating a process's {count} completions of {tokens} at once with Transformers"
    return f"training one completion of {tokens} at a time"


def _ways(basis: PlanInputs, shorter: int, demand: GpuMemory | None) -> Iterator[Alternative]:
    """Changes that take less memory, or bring more; those that lose least first.

    Args:
        shorter: completion tokens that may fit; 0 when none do.
        demand: of a training GPU; None when it is a replica that does not fit.
    """
    yield from _of_computing(basis)
    yield from _of_sharing_out(basis)
    if shorter:
        yield Alternative({"grpo.max_completion_length": shorter})
    if demand is not None:
        yield from _fewer_at_once(basis, demand)
    if basis.config.evaluation.max_completion_length is not None:
        yield Alternative({"evaluation.max_completion_length": None})
    yield from _machines(basis)
    yield from (Alternative({"model.name_or_path": name}) for name in _smaller_models(basis))


def _of_computing(basis: PlanInputs) -> Iterator[Alternative]:
    """The same step with less memory."""
    config, rollout = basis.config, basis.config.rollout
    if not config.grpo.gradient_checkpointing:
        yield Alternative({"grpo.gradient_checkpointing": True})
    if rollout.gpu_memory_utilization != "auto":
        yield Alternative({"rollout.gpu_memory_utilization": "auto"})
    if rollout.colocated and not rollout.enable_sleep_mode:
        yield Alternative({"rollout.enable_sleep_mode": True})
    yield from (
        Alternative({"distributed.strategy": kind})
        for kind in ("zero2", "zero3", "fsdp2")
        if kind != config.distributed.strategy
    )
    if config.model.attn_implementation == "eager":
        yield Alternative({"model.attn_implementation": None})
    if config.model.dtype == "float32":
        yield Alternative({"model.dtype": basis.gpu.dtype})


def _of_sharing_out(basis: PlanInputs) -> Iterator[Alternative]:
    """Other numbers of GPUs for generation."""
    rollout, gpus = basis.config.rollout, basis.config.cluster.gpus_per_node
    if rollout.tensor_parallel_size != "auto":
        yield Alternative({"rollout.tensor_parallel_size": "auto"})
    if rollout.colocated:
        awake = {"rollout.enable_sleep_mode": False} if rollout.enable_sleep_mode else {}
        yield Alternative({"rollout.mode": "server", **awake})
    elif not rollout.uses_vllm:
        yield Alternative({"rollout.backend": "vllm"})
    else:
        yield Alternative({"rollout.mode": "colocate", "rollout.replicas": "auto", "rollout.nodes": "auto"})
    if rollout.tensor_parallel_size != "auto" and basis.architecture is not None:
        sizes = servable_sizes(basis.architecture, gpus)
        yield from (Alternative({"rollout.tensor_parallel_size": size}) for size in sizes if size > 1)


def _fewer_at_once(basis: PlanInputs, demand: GpuMemory) -> Iterator[Alternative]:
    """Fewer prompts: Transformers generates all completions of a process at once."""
    now, prompts = demand.trainer.generation_batch, basis.config.grpo.prompts_per_step
    most = largest(lambda count: fits(basis, _with(demand, generation_batch=count).least()), 1, now) if now else 0
    fewer = prompts * most // now if now else 0
    if 0 < fewer < prompts:
        yield Alternative({"grpo.prompts_per_step": fewer})


def _machines(basis: PlanInputs) -> Iterator[Alternative]:
    """Larger GPUs; or more of them, with the weights sharded over them."""
    yield from (Alternative({"cluster.gpu": name}) for name in _larger_gpus(basis))
    cluster, now = basis.config.cluster, basis.config.distributed.strategy
    kind = {} if now in ("zero3", "fsdp2") else {"distributed.strategy": "zero3"}
    gpus, nodes = cluster.gpus_per_node, cluster.nodes
    while gpus * 2 <= USUAL_NODE:
        gpus *= 2
        yield Alternative({"cluster.gpus_per_node": gpus})
        yield Alternative({"cluster.gpus_per_node": gpus, **kind})
    while gpus and nodes * 2 * gpus <= MOST_PROCESSES:
        nodes *= 2
        whole = {"cluster.gpus_per_node": gpus} if gpus != cluster.gpus_per_node else {}
        yield Alternative({"cluster.nodes": nodes, **whole, **kind})


def _larger_gpus(basis: PlanInputs) -> list[str]:
    """From the table, smallest first, one of each memory size; a GPU with configured memory is compared by that."""
    if basis.config.cluster.gpu_overrides.memory is not None:
        return []
    larger: dict[int, str] = {}
    for known in GPUS.values():
        if known.memory > basis.gpu.memory:
            larger.setdefault(known.memory, known.name)
    return [larger[memory] for memory in sorted(larger)]


def _smaller_models(basis: PlanInputs) -> list[str]:
    """Smaller models known by name, largest first."""
    parameters = basis.architecture.parameters() if basis.architecture is not None else 0
    base = basis.config.model.name_or_path.endswith("-Base")
    sizes = {name: known.parameters() for name, known in KNOWN.items() if name.endswith("-Base") == base}
    smaller = [name for name, size in sizes.items() if size < parameters]
    return [f"{OWNERS[0]}/{name}" for name in sorted(smaller, key=lambda name: -sizes[name])]


def _shorter(basis: PlanInputs, fitting: Callable[[int], bool]) -> int:
    """Most completion tokens that fit, in steps; 0 if not even one step fits."""
    steps = (basis.completion_tokens - 1) // LENGTH_STEP
    return LENGTH_STEP * largest(lambda count: fitting(LENGTH_STEP * count), 1, steps)


def _with_completion(demand: GpuMemory, tokens: int) -> GpuMemory:
    engine = demand.engine
    if engine is not None:
        engine = replace(engine, max_model_len=demand.trainer.prompt_tokens + tokens)
    return replace(_with(demand, completion_tokens=tokens), engine=engine)


def _with(demand: GpuMemory, **changes: Any) -> GpuMemory:
    return replace(demand, trainer=replace(demand.trainer, **changes))
