"""Bytes per GPU, by role and component, before anything is started.

A role's memory is what it always holds plus what the hungriest phase of a step adds. Each component carries the
formula it comes from; what is estimated rather than derived (contexts, CUDA graphs, the margin) is a component of its
own.
"""

from grpo_dist.plan.memory.activations import AttentionName
from grpo_dist.plan.memory.breakdown import Component, MemoryBreakdown, Phase
from grpo_dist.plan.memory.colocate import colocated_memory
from grpo_dist.plan.memory.lora import Lora
from grpo_dist.plan.memory.rollout import (
    RolloutSetup,
    kv_cache_bytes,
    kv_cache_tokens,
    max_concurrency,
    minimum_utilization,
    rollout_memory,
)
from grpo_dist.plan.memory.search import largest_micro_batch
from grpo_dist.plan.memory.sharding import Sharding, ShardingKind
from grpo_dist.plan.memory.trainer import answering_memory, trainer_memory
from grpo_dist.plan.memory.trainer_setup import TrainerSetup
from grpo_dist.plan.memory.weights import Dtype, Quantization

__all__ = [
    "AttentionName",
    "Component",
    "Dtype",
    "Lora",
    "MemoryBreakdown",
    "Phase",
    "Quantization",
    "RolloutSetup",
    "Sharding",
    "ShardingKind",
    "TrainerSetup",
    "answering_memory",
    "colocated_memory",
    "kv_cache_bytes",
    "kv_cache_tokens",
    "largest_micro_batch",
    "max_concurrency",
    "minimum_utilization",
    "rollout_memory",
    "trainer_memory",
]
