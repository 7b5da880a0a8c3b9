"""A training process and a vLLM replica on the same GPU."""

from __future__ import annotations

from grpo_dist.plan.memory.breakdown import Component, MemoryBreakdown, Phase

ASLEEP = ("CUDA graphs", "vLLM workspaces")
"""What a sleeping vLLM keeps: `LLM.sleep` frees weights, adapters and KV cache (vLLM docs, Sleep Mode)."""
SHARED = ("CUDA context", "NCCL buffers")
"""Colocated vLLM runs in the trainer's process."""


def colocated_memory(trainer: MemoryBreakdown, rollout: MemoryBreakdown, *, sleep: bool) -> MemoryBreakdown:
    """Both on one GPU: side by side all the time, or (`vllm_enable_sleep_mode`) vLLM asleep while the model trains."""
    engine = tuple(component for component in rollout.components if component.name not in SHARED)
    if not sleep:
        return MemoryBreakdown("colocate", trainer.resident + _named(engine), trainer.phases)
    asleep = tuple(component for component in engine if component.name in ASLEEP)
    awake = tuple(component for component in engine if component.name not in ASLEEP)
    serve = Phase("serve", _named(awake))
    return MemoryBreakdown("colocate with sleep", trainer.resident + _named(asleep), (*trainer.phases, serve))


def _named(components: tuple[Component, ...]) -> tuple[Component, ...]:
    return tuple(component._replace(name=_name(component.name)) for component in components)


def _name(name: str) -> str:
    return name if name.startswith("vLLM") else f"vLLM {name}"
