"""From the names in the configuration to callable rewards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from grpo_dist.config.rewards import RewardFunction
from grpo_dist.errors import RewardError
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.rewards.loaded import AsyncLoadedReward, LoadedReward
from grpo_dist.rewards.names import accepted_kwargs, check_reward_names, is_users, member_names
from grpo_dist.rewards.resolve import resolve

__all__ = ["LoadedReward", "check_reward_names", "load_rewards"]


def load_rewards(functions: Sequence[RewardFunction]) -> list[LoadedReward]:
    """The rewards in order, each set replaced by its members.

    Every member has the weight of its set, and those of its kwargs that it takes. Imports the user's
    code. RewardError for a name, keyword argument or function that cannot be used, or one listed twice.
    """
    problems = check_reward_names(functions)
    if problems:
        ours = f"rewards: {', '.join(REWARDS)}; sets: {', '.join(REWARD_SETS)}"
        raise RewardError("\n".join(problems), hint=f"{ours}; yours: package.module:function or path/file.py:function")
    return [_load(name, function) for function in functions for name in member_names(function.name)]


def _load(name: str, configured: RewardFunction) -> LoadedReward:
    if is_users(name):
        function, kwargs = resolve(name), configured.kwargs
    else:
        function, accepted = REWARDS[name], accepted_kwargs(name)
        kwargs = {key: value for key, value in configured.kwargs.items() if key in accepted}
    # The two forms that TRL recognises: `async def`, and an object whose `__call__` is one.
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)
    kind = AsyncLoadedReward if is_async else LoadedReward
    return kind(name=name, weight=configured.weight, function=function, kwargs=kwargs)
