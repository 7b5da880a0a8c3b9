"""A model that does not fit: the numbers, and single changes that make it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from grpo_dist.plan.basis import Basis
from grpo_dist.plan.demand import Demand, fits, largest, servable_sizes, with_concurrency
from grpo_dist.plan.hardware import GPUS
from grpo_dist.plan.memory import MemoryBreakdown, RolloutSetup, Sharding, max_concurrency, rollout_memory
from grpo_dist.plan.refusal import Refused, Way

MOST_PROCESSES = 1024
USUAL_NODE = 8
"""GPUs; beyond them more nodes are suggested."""
LENGTH_STEP = 64
"""Tokens."""
SMALLER = "take a smaller model: no setting alone makes this one fit"

Change = tuple[dict[str, object], Demand]


def trainer_does_not_fit(basis: Basis, demand: Demand) -> Refused:
    """Not even one completion at a time."""
    least = demand.least().memory()
    beside = "" if demand.engine is None else " beside a vLLM engine for one sequence"
    part = least.largest()
    return Refused(
        f"{basis.config.model.name_or_path} does not fit: {_what(basis, demand, least)}{beside} needs "
        f"{_gib(least.total)}, margin included, and one {basis.gpu.name} has {_gib(basis.gpu.memory)}; "
        f"the most is {part.name}: {_gib(part.bytes)} ({part.source})",
        _ways(basis, demand),
        otherwise=SMALLER,
    )


def engine_does_not_fit(basis: Basis, engine: RolloutSetup, tried: list[int]) -> Refused:
    """A vLLM replica whose KV cache cannot hold one sequence.

    Args:
        tried: tensor-parallel sizes for which it cannot, in ascending order.
    """
    size, share = engine.tensor_parallel_size, engine.gpu_memory_utilization
    weights = next(part for part in rollout_memory(engine).components if part.name == "weights")
    others = f" (nor on {', '.join(map(str, tried[:-1]))})" if len(tried) > 1 else ""
    on = f"{size} GPU{'' if size == 1 else 's'}{others}"
    return Refused(
        f"{basis.config.model.name_or_path} does not fit: a vLLM replica on {on} with gpu_memory_utilization {share:g} "
        f"has {_gib(share * basis.gpu.memory)} of each {basis.gpu.name}, holds {_gib(weights.bytes)} of weights there, "
        f"and has no room for one sequence of {engine.max_model_len:,} tokens",
        _engine_ways(basis, engine),
        otherwise=SMALLER,
    )


def _what(basis: Basis, demand: Demand, least: MemoryBreakdown) -> str:
    tokens = f"{basis.prompt_tokens:,} + {basis.completion_tokens:,} tokens"
    if least.peak_phase.name == "generate":
        count = demand.trainer.generation_batch
        return f"generating a process's {count} completions of {tokens} at once with Transformers"
    return f"training one completion of {tokens} at a time"


def _ways(basis: Basis, demand: Demand) -> Iterator[Way]:
    """Changes with which the smallest micro-batch fits, the least costly first."""
    for settings, changed in _changes(basis, demand):
        smallest = changed.least()
        room = smallest.engine is None or max_concurrency(smallest.engine)
        if room and fits(basis, smallest):
            yield Way(settings, _a_gpu(smallest.memory()))
    if demand.engine is None:
        least = demand.least().memory()
        yield from (
            Way({"cluster.gpu": name}, _a_gpu(least)) for name in _larger_gpus(basis) if least.fits(GPUS[name].memory)
        )


def _changes(basis: Basis, demand: Demand) -> Iterator[Change]:
    if not demand.trainer.gradient_checkpointing:
        yield {"grpo.gradient_checkpointing": True}, _with(demand, gradient_checkpointing=True)
    if demand.engine is not None:
        yield from _engine_beside(basis, demand)
    yield from _fewer_at_once(basis, demand)
    yield from _shardings(demand)
    shorter = _shorter(basis, demand)
    if shorter:
        yield {"grpo.max_completion_length": shorter}, _with_completion(demand, shorter)
    yield from _more_processes(basis, demand)


def _engine_beside(basis: Basis, demand: Demand) -> Iterator[Change]:
    if basis.config.rollout.gpu_memory_utilization != "auto":
        yield {"rollout.gpu_memory_utilization": "auto"}, demand
    if not demand.sleep:
        yield {"rollout.enable_sleep_mode": True}, replace(demand, sleep=True)
    awake = {"rollout.enable_sleep_mode": False} if demand.sleep else {}
    yield {"rollout.mode": "server", **awake}, replace(demand, engine=None)


def _fewer_at_once(basis: Basis, demand: Demand) -> Iterator[Change]:
    """Fewer prompts: Transformers generates all completions of a process at once."""
    now, prompts = demand.trainer.generation_batch, basis.config.grpo.prompts_per_step
    most = largest(lambda count: fits(basis, _with(demand, generation_batch=count).least()), 1, now) if now else 0
    fewer = prompts * most // now if now else 0
    if 0 < fewer < prompts:
        yield {"grpo.prompts_per_step": fewer}, _with(demand, generation_batch=most)


def _shardings(demand: Demand) -> Iterator[Change]:
    now = demand.trainer.sharding
    for kind in ("zero2", "zero3", "fsdp2") if now.num_processes > 1 else ():
        if kind != now.kind and (demand.trainer.quantization is None or kind == "zero2"):
            yield {"distributed.strategy": kind}, _with(demand, sharding=Sharding(kind, now.num_processes))


def _more_processes(basis: Basis, demand: Demand) -> Iterator[Change]:
    """Weights sharded over twice as many GPUs, and twice again; an engine beside them over GPUs of a node."""
    now, cluster = demand.trainer.sharding, basis.config.cluster
    kind = now.kind if now.shards_weights else "zero3"
    times = 2
    while demand.trainer.quantization is None and times * now.num_processes <= MOST_PROCESSES:
        gpus, more = cluster.gpus_per_node, {"cluster.nodes": cluster.nodes * times}
        if gpus * times <= USUAL_NODE:
            gpus *= times
            more = {"cluster.gpus_per_node": gpus}
        sharded = _with(demand, sharding=Sharding(kind, times * now.num_processes))
        yield {**more, "distributed.strategy": kind}, _split_engine(basis, sharded, gpus)
        times *= 2


def _split_engine(basis: Basis, demand: Demand, gpus: int) -> Demand:
    """With an engine on as few GPUs of a node as fit, where their number is left open."""
    engine = demand.engine
    if engine is None or basis.config.rollout.tensor_parallel_size != "auto":
        return demand
    sizes = (size for size in servable_sizes(engine.architecture, gpus) if gpus % size == 0)
    wider = (replace(demand, engine=replace(engine, tensor_parallel_size=size)) for size in sizes)
    return next((one for one in wider if fits(basis, one.least())), demand)


def _shorter(basis: Basis, demand: Demand) -> int:
    """Most completion tokens that fit, in steps; 0 when not even one step does."""
    steps = (demand.trainer.completion_tokens - 1) // LENGTH_STEP

    def fitting(count: int) -> bool:
        return fits(basis, _with_completion(demand, LENGTH_STEP * count).least())

    return LENGTH_STEP * largest(fitting, 1, steps)


def _with_completion(demand: Demand, tokens: int) -> Demand:
    engine = demand.engine
    if engine is not None:
        engine = replace(engine, max_model_len=demand.trainer.prompt_tokens + tokens)
    return replace(_with(demand, completion_tokens=tokens), engine=engine)


def _with(demand: Demand, **changes: object) -> Demand:
    return replace(demand, trainer=replace(demand.trainer, **changes))


def _engine_ways(basis: Basis, engine: RolloutSetup) -> Iterator[Way]:
    for settings, changed in _engine_changes(basis, engine):
        if max_concurrency(changed):
            yield Way(settings, _a_gpu(rollout_memory(changed)))


def _engine_changes(basis: Basis, engine: RolloutSetup) -> Iterator[tuple[dict[str, object], RolloutSetup]]:
    share = with_concurrency(engine, 1).gpu_memory_utilization
    if engine.gpu_memory_utilization < share <= 1:
        yield {"rollout.gpu_memory_utilization": share}, replace(engine, gpu_memory_utilization=share)
    for size in (2, 4, 8):
        if size > engine.tensor_parallel_size and engine.architecture.num_attention_heads % size == 0:
            wider = {"cluster.gpus_per_node": size} if size > basis.config.cluster.gpus_per_node else {}
            yield {"rollout.tensor_parallel_size": size, **wider}, replace(engine, tensor_parallel_size=size)
    steps = (basis.completion_tokens - 1) // LENGTH_STEP

    def shortened(count: int) -> RolloutSetup:
        return replace(engine, max_model_len=basis.prompt_tokens + LENGTH_STEP * count)

    shorter = largest(lambda count: max_concurrency(shortened(count)) > 0, 1, steps)
    if shorter:
        yield {"grpo.max_completion_length": LENGTH_STEP * shorter}, shortened(shorter)
    for name in _larger_gpus(basis):
        yield {"cluster.gpu": name}, replace(engine, gpu_bytes=GPUS[name].memory)


def _larger_gpus(basis: Basis) -> list[str]:
    """From the table, smallest first; a GPU whose memory was given is compared by that."""
    if basis.config.cluster.gpu_overrides.memory is not None:
        return []
    larger = [known for known in GPUS.values() if known.memory > basis.gpu.memory and known.name != "cpu"]
    return [known.name for known in sorted(larger, key=lambda known: known.memory)]


def _a_gpu(memory: MemoryBreakdown) -> str:
    return f"{_gib(memory.total)} a GPU"


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
