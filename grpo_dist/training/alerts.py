"""Signs, in the metrics of a step, that nothing is being learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

PATIENCE = 3
"""Logged steps in a row before a sign is told."""
SIGNS = {
    "frac_reward_zero_std": (
        1.0,
        "in every group all completions had the same reward: nothing to learn from, or nothing left; if the reward is "
        "not yet what you want, look into completions/, then try other problems or rewards, or a higher temperature",
    ),
    "completions/clipped_ratio": (
        0.5,
        "half of the completions or more were cut off at the length limit: an answer after the cut cannot be paid; "
        "raise grpo.max_completion_length",
    ),
}
"""Metric → (lowest value that counts, what to tell)."""


class Alerts:
    """Tells each sign once, when it has stood for PATIENCE logged steps in a row."""

    def __init__(self) -> None:
        self.streaks: Counter[str] = Counter()
        self.told: set[str] = set()

    def of(self, logs: Mapping[str, Any]) -> Iterator[str]:
        """What the metrics of one more step give reason to tell."""
        for metric, (limit, text) in SIGNS.items():
            value = logs.get(metric)
            self.streaks[metric] = self.streaks[metric] + 1 if value is not None and value >= limit else 0
            if self.streaks[metric] == PATIENCE and metric not in self.told:
                self.told.add(metric)
                yield f"warning: in the last {PATIENCE} steps, {text}"
