"""Reward functions, by name. All have TRL's signature: `f(prompts, completions, **columns) -> list[float | None]`.

`prompts`, `completions`, `completion_ids` and the columns of the data set (`answer`) have one entry per completion. The
user's functions are resolved by `grpo_dist.rewards.load`.
"""

from grpo_dist.rewards.builtin import (
    accuracy,
    check_answer,
    check_numbers,
    match_format_approximately,
    match_format_exactly,
    soft_overlong_punishment,
    strict_answer,
    strict_format,
)
from grpo_dist.rewards.programs.reward import code
from grpo_dist.rewards.tasks import reasoning_gym

REWARDS = {
    "match_format_exactly": match_format_exactly,
    "match_format_approximately": match_format_approximately,
    "check_answer": check_answer,
    "check_numbers": check_numbers,
    "strict_format": strict_format,
    "strict_answer": strict_answer,
    "accuracy": accuracy,
    "code": code,
    "soft_overlong_punishment": soft_overlong_punishment,
    "reasoning_gym": reasoning_gym,
}

REWARD_SETS = {
    "notebook": ("match_format_exactly", "match_format_approximately", "check_answer", "check_numbers"),
    "strict": ("strict_format", "strict_answer"),
}

__all__ = ["REWARDS", "REWARD_SETS", *REWARDS]
