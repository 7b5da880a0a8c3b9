"""The largest micro-batch that fits."""

from __future__ import annotations

from dataclasses import replace

from grpo_dist.plan.memory.trainer import trainer_memory
from grpo_dist.plan.memory.trainer_setup import TrainerSetup


def largest_micro_batch(setup: TrainerSetup, gpu_bytes: int, *, at_most: int) -> int:
    """Most completions per forward and backward pass, between 0 (not even one fits) and at_most.

    Memory never falls as the micro-batch grows, so halving finds it in log₂(at_most) evaluations.
    """

    def fits(size: int) -> bool:
        return trainer_memory(replace(setup, micro_batch=size)).fits(gpu_bytes)

    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
