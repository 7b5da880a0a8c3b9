"""Signs, in the metrics of a step, that nothing is being learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

PATIENCE = 3
"""Logged steps in a row before a sign is told."""


@dataclass(frozen=True)
class Sign:
    """A range of a metric that tells something."""

    metric: str
    text: str
    at_least: float = -inf
    at_most: float = inf
    correction: str = ""
    """How `vllm_importance_sampling_mode` has to begin for it."""

    def shows(self, value: float | None) -> bool:
        return value is not None and self.at_least <= value <= self.at_most


SIGNS = (
    Sign(
        "frac_reward_zero_std",
        "in every group all completions had the same reward: nothing to learn from, or nothing left; if the reward is "
        "not yet what you want, look into completions/, then try other problems or rewards, or a higher temperature",
        at_least=1.0,
    ),
    Sign(
        "completions/clipped_ratio",
        "half of the completions or more were cut off at the length limit: an answer after the cut cannot be paid; "
        "raise grpo.max_completion_length",
        at_least=0.5,
    ),
    Sign(
        "sampling/effective_sample_size",
        "importance-sampling correction left an effective sample of half of the completions or less: over a whole "
        "completion, rounding alone makes the ratio large or nearly 0; "
        "set grpo.vllm_importance_sampling_mode to token_truncate",
        at_most=0.5,
        correction="sequence_",
    ),
    Sign(
        "sampling/effective_sample_size",
        "importance-sampling correction left an effective sample of half of the tokens or less: the engines sample "
        "from another distribution than the one that is trained; compare perf/canary_difference with earlier steps, "
        "leave out grpo.top_p, grpo.top_k and grpo.min_p, and set grpo.num_iterations to 1",
        at_most=0.5,
        correction="token_",
    ),
)


class Alerts:
    """Tells each sign once, when it has stood for PATIENCE logged steps in a row.

    Args:
        correction: TRL's `vllm_importance_sampling_mode`.
    """

    def __init__(self, correction: str) -> None:
        self.signs = [sign for sign in SIGNS if correction.startswith(sign.correction)]
        self.streaks: Counter[str] = Counter()
        self.told: set[str] = set()

    def of(self, logs: Mapping[str, Any]) -> Iterator[str]:
        """What the metrics of one more step give reason to tell."""
        for sign in self.signs:
            metric = sign.metric
            self.streaks[metric] = self.streaks[metric] + 1 if sign.shows(logs.get(metric)) else 0
            if self.streaks[metric] == PATIENCE and metric not in self.told:
                self.told.add(metric)
                yield f"warning: in the last {PATIENCE} steps, {sign.text}"
