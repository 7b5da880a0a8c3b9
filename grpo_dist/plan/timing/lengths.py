"""How long prompts and completions are, in tokens."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_dist.errors import PlanError


@dataclass(frozen=True)
class Lengths:
    """Tokens of one sequence. Generation of a batch ends with its longest completion, so the mean alone says little."""

    prompt: float
    """Mean prompt."""
    mean: float
    """Mean completion."""
    longest: float
    """Longest completion of a step's batch; the length limit where at least one reaches it, which is usual."""

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and 0 < self.mean <= self.longest):
            raise PlanError(
                f"lengths of {self.prompt:g} prompt, {self.mean:g} mean and {self.longest:g} longest completion tokens "
                f"are no lengths",
                hint="give 0 ≤ prompt and 0 < mean completion ≤ longest completion",
            )

    @property
    def padded(self) -> float:
        """Tokens a training pass computes for each sequence: TRL pads a generation batch to its longest completion."""
        return self.prompt + self.longest
