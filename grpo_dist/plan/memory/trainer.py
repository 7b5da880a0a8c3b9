"""One training process on its GPU."""

from __future__ import annotations

from grpo_dist.plan.memory.breakdown import MemoryBreakdown, Phase, without_zeros
from grpo_dist.plan.memory.generation import generation_components
from grpo_dist.plan.memory.overhead import process_overhead, with_margin
from grpo_dist.plan.memory.phases import phases
from grpo_dist.plan.memory.states import resident
from grpo_dist.plan.memory.trainer_setup import TrainerSetup


def answering_memory(setup: TrainerSetup, sequences: int) -> MemoryBreakdown:
    """A process of the comparison: the model with its adapter, and so many completions generated at once."""
    names = ("weights", "adapter")
    held = without_zeros(component for component in resident(setup) if component.name in names)
    prefill = setup.batch(sequences, setup.prompt_tokens)
    parts = (Phase("generate", without_zeros(generation_components(prefill, setup.completion_tokens))),)
    return MemoryBreakdown("comparison", held + process_overhead(1), with_margin(held, parts))


def trainer_memory(setup: TrainerSetup) -> MemoryBreakdown:
    """What the process always holds, and the phases of an optimizer step: generate, head, backward, update.

    Gradients are counted in every phase after generation: with gradient accumulation those of earlier micro-batches
    are there when a new one begins.
    """
    held = without_zeros(resident(setup))
    parts = tuple(Phase(name, without_zeros(components)) for name, components in phases(setup))
    overhead = process_overhead(setup.sharding.num_processes)
    return MemoryBreakdown("trainer", held + overhead, with_margin(held, parts))
