"""Which functions pay for a completion."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from grpo_dist.config.section import Name, Section


class RewardFunction(Section):
    """One reward: a name of ours, or a function of yours."""

    name: Name
    """A name in `grpo_dist.rewards.REWARDS`, a set (`notebook`, `strict`), `package.module:function` or `path/file.py:function`."""
    weight: float = 1.0
    """Factor in the sum of rewards (TRL's `reward_weights`)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments bound to the function."""


class RewardsSection(Section):
    """The rewards of a completion are the weighted sum of these functions."""

    functions: tuple[RewardFunction, ...] = Field(default=(RewardFunction(name="notebook"),), min_length=1)
    """Functions in order; a plain string stands for `{name: string}`."""
