"""The adapter: what is trained, and in which dtype it is held."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_dist.plan.architecture import Architecture, Linear


@dataclass(frozen=True)
class Lora:
    """Rank and targets of a LoRA adapter."""

    r: int
    target_modules: str | tuple[str, ...]

    def parameters(self, architecture: Architecture) -> int:
        return architecture.lora_parameters(self.r, self.target_modules)

    def targeted(self, architecture: Architecture) -> tuple[Linear, ...]:
        return architecture.targeted(self.target_modules)
