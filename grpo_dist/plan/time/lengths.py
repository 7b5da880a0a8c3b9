"""How long prompts and completions are, in tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log

from grpo_dist.errors import PlanError


@dataclass(frozen=True)
class Lengths:
    """Tokens of one sequence. Generation of a batch ends with its longest completion, so the mean is not enough.

    Between nothing and the longest, lengths are taken to be longest × u^shape, u uniform: the family with these two
    numbers whose order statistics are known. With a mean of half the longest, all lengths are equally likely.
    """

    prompt: float
    """Mean prompt."""
    mean: float
    """Mean completion."""
    longest: float
    """Longest completion of a step's batch; the length limit if at least one reaches it, which is usual."""
    longest_prompt: float | None = None
    """None: all prompts have the mean length."""

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and 0 < self.mean <= self.longest):
            raise PlanError(
                f"lengths of {self.prompt:g} prompt, {self.mean:g} mean and {self.longest:g} longest completion tokens "
                f"are no lengths",
                hint="give 0 ≤ prompt and 0 < mean completion ≤ longest completion",
            )

    @property
    def padded(self) -> float:
        """Tokens of each sequence of a generation batch: TRL pads it to its longest prompt and completion."""
        return (self.longest_prompt or self.prompt) + self.longest

    @property
    def mean_square(self) -> float:
        """Mean length of completions."""
        return self.longest**2 / (2 * self.longest / self.mean - 1)

    def completion(self, rank: int, count: int) -> float:
        """Expected length of the rank-th shortest of so many completions."""
        return _order_statistic(self.longest, self.mean, rank, count)

    def prompt_of(self, count: int) -> float:
        """Expected length of the longest of so many prompts."""
        if not self.prompt or self.longest_prompt is None:
            return self.prompt
        return _order_statistic(self.longest_prompt, self.prompt, count, count)


def _order_statistic(longest: float, mean: float, rank: int, count: int) -> float:
    """Of u^shape, u uniform: E[u_(k)^s] = Γ(k + s) Γ(n + 1) / (Γ(k) Γ(n + 1 + s))."""
    shape = longest / mean - 1
    if shape <= 0:
        return longest
    return longest * exp(_log_ratio(rank, shape) - _log_ratio(count + 1, shape))


def _log_ratio(x: int, shape: float) -> float:
    """log(Γ(x + shape) / Γ(x)). For large x the logarithms of Γ are large and cancel; the ratio tends to a power."""
    return lgamma(x + shape) - lgamma(x) if x < 1e8 else shape * log(x)
