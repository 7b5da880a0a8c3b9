"""Bytes per GPU, by role and component, before anything is started.

A role's memory is what it always holds plus the largest phase of a step. Each component names the formula it comes
from; anything estimated rather than derived (contexts, CUDA graphs, the margin) is a separate component.
"""

from grpo_dist.plan.memory.activations import AttentionName, Lora
from grpo_dist.plan.memory.breakdown import Component, Dtype, MemoryBreakdown, Phase
from grpo_dist.plan.memory.optimizer import Sharding, ShardingKind
from grpo_dist.plan.memory.trainer import TrainerSetup, answering_memory, trainer_memory
from grpo_dist.plan.memory.vllm import (
    RolloutSetup,
    colocated_memory,
    kv_cache_bytes,
    kv_cache_tokens,
    max_concurrency,
    minimum_utilization,
    rollout_memory,
)
from grpo_dist.plan.specs.architecture import Quantization

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
    "max_concurrency",
    "minimum_utilization",
    "rollout_memory",
    "trainer_memory",
]
