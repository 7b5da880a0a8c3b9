"""What one GPU of each role has to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from grpo_dist.config import RunConfig
from grpo_dist.plan.architecture import Architecture, Quantization, bitsandbytes
from grpo_dist.plan.basis import Basis
from grpo_dist.plan.memory import (
    AttentionName,
    Lora,
    MemoryBreakdown,
    RolloutSetup,
    Sharding,
    TrainerSetup,
    colocated_memory,
    max_concurrency,
    minimum_utilization,
    rollout_memory,
    trainer_memory,
)

SERVER_UTILIZATION = 0.9
"""vLLM's own default; a server has its GPUs to itself."""
MOST_UTILIZATION = 0.9
"""Of a colocated engine."""
NO_GAIN = 1.005
"""Times the fewest seconds of generation: what costs no more leaves the memory free."""
MOST_SEQUENCES = 1024
"""A colocated engine runs at a time; vLLM refuses more than `max_num_batched_tokens`."""
COLOCATED = {"max_num_batched_tokens": 4096, "max_loras": 1}
"""As TRL starts an engine in a training process, and as many adapters as it is given at a time."""


@dataclass(frozen=True)
class Demand:
    """A training GPU: its training process, and the vLLM engine beside it when colocated."""

    trainer: TrainerSetup
    engine: RolloutSetup | None = None
    sleep: bool = False
    """The engine gives its memory back while the model trains."""

    def memory(self, micro_batch: int | None = None, utilization: float | None = None) -> MemoryBreakdown:
        """With other sizes than its own where given."""
        trainer = self.trainer if micro_batch is None else replace(self.trainer, micro_batch=micro_batch)
        if self.engine is None:
            return trainer_memory(trainer)
        engine = self.engine if utilization is None else replace(self.engine, gpu_memory_utilization=utilization)
        return colocated_memory(trainer_memory(trainer), rollout_memory(engine), sleep=self.sleep)

    def least(self) -> Demand:
        """With the smallest micro-batch, and an engine that holds one sequence at a time."""
        engine = None if self.engine is None else with_concurrency(self.engine, 1)
        return replace(self, trainer=replace(self.trainer, micro_batch=1), engine=engine)


def with_concurrency(engine: RolloutSetup, sequences: int) -> RolloutSetup:
    """With the least share of the GPU that holds so many sequences, at most the whole GPU."""
    return replace(engine, gpu_memory_utilization=min(1.0, minimum_utilization(engine, sequences)))


def fits(basis: Basis, demand: Demand) -> bool:
    """On a GPU of the plan."""
    return demand.memory().fits(int(basis.gpu.memory))


def largest(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number in low…high for which it holds, where it does for all below; low − 1 when none does."""
    low -= 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def trainer_setup(basis: Basis, architecture: Architecture, processes: int, per_process: int) -> TrainerSetup:
    """A training process with a micro-batch of one."""
    config = basis.config
    return TrainerSetup(
        architecture=architecture,
        micro_batch=1,
        prompt_tokens=basis.prompt_tokens,
        completion_tokens=basis.completion_tokens,
        dtype=config.model.dtype,
        quantization=quantization_of(config, architecture),
        lora=lora_of(config),
        optim=config.grpo.optim,
        sharding=Sharding(config.distributed.strategy, processes),
        gradient_checkpointing=config.grpo.gradient_checkpointing,
        attention=_attention(config.model.attn_implementation),
        reference_model=config.grpo.beta > 0,
        generation_batch=per_process if config.rollout.backend == "transformers" else 0,
    )


def engine_setup(basis: Basis, architecture: Architecture, tensor_parallel_size: int, share: int) -> RolloutSetup:
    """A vLLM replica at the stated utilization, or a server's where none is stated.

    Args:
        share: completions of a training process in a step: a colocated engine runs at most those of its processes.
    """
    config, stated = basis.config, basis.config.rollout.gpu_memory_utilization
    colocated = config.rollout.mode == "colocate"
    how = {**COLOCATED, "max_num_seqs": min(MOST_SEQUENCES, max(1, share) * tensor_parallel_size)} if colocated else {}
    return RolloutSetup(
        architecture=architecture,
        gpu_bytes=int(basis.gpu.memory),
        max_model_len=basis.texts.engine,
        gpu_memory_utilization=SERVER_UTILIZATION if stated == "auto" else stated,
        tensor_parallel_size=tensor_parallel_size,
        dtype=config.model.dtype,
        max_lora_rank=config.lora.r if config.rollout.sync == "adapter" else 0,
        **how,
    )


def engine_utilization(demand: Demand, micro_batch: int, seconds: Callable[[RolloutSetup], float]) -> float:
    """The share of a training GPU that a colocated engine gets beside this micro-batch, in hundredths: as much as
    makes generation faster, of what there is.

    Args:
        seconds: that generation takes with such an engine.
    """
    engine, gpu_bytes = demand.engine, demand.engine.gpu_bytes

    def with_share(hundredths: int) -> RolloutSetup:
        return replace(engine, gpu_memory_utilization=hundredths / 100)

    low = round(100 * engine.gpu_memory_utilization)
    useful = min(MOST_UTILIZATION, minimum_utilization(engine, engine.max_num_seqs))
    most = largest(lambda u: demand.memory(micro_batch, u / 100).fits(gpu_bytes), low, max(low, round(100 * useful)))
    enough = NO_GAIN * seconds(with_share(most))
    return (1 + largest(lambda u: seconds(with_share(u)) > enough, low, most - 1)) / 100


def group_fits(engine: RolloutSetup, group: int) -> bool:
    """The KV cache holds a whole group at full length, as far as vLLM runs so many at a time."""
    return max_concurrency(engine) >= min(group, engine.max_num_seqs)


def lora_of(config: RunConfig) -> Lora:
    return Lora(config.lora.r, config.lora.target_modules)


def quantization_of(config: RunConfig, architecture: Architecture) -> Quantization | None:
    """Of the weights that train: as they are stored, or as they are loaded."""
    arguments = config.model.model_init_kwargs
    return architecture.quantization or bitsandbytes(arguments.get("quantization_config") or arguments)


def servable_sizes(architecture: Architecture, gpus: int) -> list[int]:
    """Sizes vLLM takes on a node of so many GPUs: query heads and the MLP are split evenly, key-value heads are split
    or repeated evenly (`vllm/model_executor/layers/linear.py`, `ModelConfig.verify_with_parallel_config`)."""
    heads, keys, mlp = (
        architecture.num_attention_heads,
        architecture.num_key_value_heads,
        architecture.intermediate_size,
    )
    return [
        size
        for size in range(1, min(gpus, heads) + 1)
        if heads % size == 0 and mlp % size == 0 and (keys % size == 0 or size % keys == 0)
    ]


def _attention(name: str | None) -> AttentionName:
    """As the memory formulas tell them apart; a kernel not named keeps as little as FlashAttention."""
    if name is None or name == "sdpa":
        return "sdpa"
    return "eager" if name == "eager" else "flash_attention_2"
