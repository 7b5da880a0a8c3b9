"""Checks of the names in `rewards.functions` before any user code is imported."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence

from grpo_dist.config.sections import RewardFunction
from grpo_dist.rewards import REWARD_SETS, REWARDS
from grpo_dist.text import closest

FROM_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Keyword arguments TRL passes to every reward besides the columns of the data set."""


def is_users(name: str) -> bool:
    """Whether the name refers to a function of the user: `package.module:function` or `path/file.py:function`."""
    return ":" in name


def member_names(name: str) -> tuple[str, ...]:
    """The members of a set; any other name gives itself."""
    return REWARD_SETS.get(name, (name,))


def metric_name(name: str) -> str:
    """The name in TRL's metrics, `rewards/<metric_name>/mean`: the function's own."""
    return name.rpartition(":")[2]


def accepted_kwargs(name: str) -> frozenset[str]:
    """Keyword arguments that a built-in reward accepts in the configuration."""
    parameters = inspect.signature(REWARDS[name]).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY) - {"answer", *FROM_TRL}


def required_kwargs(name: str) -> frozenset[str]:
    """The `accepted_kwargs` that have no default."""
    parameters = inspect.signature(REWARDS[name]).parameters
    return frozenset(kwarg for kwarg in accepted_kwargs(name) if parameters[kwarg].default is inspect.Parameter.empty)


def check_reward_names(functions: Sequence[RewardFunction]) -> list[str]:
    """Errors in the names and keyword arguments, one line each; [] if there are none.

    A function of the user is only checked for a metric name that is already taken.
    """
    problems = [problem for function in functions for problem in _problems(function)]
    metrics = Counter(metric_name(member) for function in functions for member in member_names(function.name))
    twice = [name for name, count in metrics.items() if count > 1]
    return problems + [
        f"reward '{name}' is listed more than once; its metrics would overwrite each other" for name in twice
    ]


def _problems(function: RewardFunction) -> Iterator[str]:
    for kwarg in sorted(set(function.kwargs) & set(FROM_TRL)):
        yield f"reward '{function.name}': the trainer passes `{kwarg}` itself; it cannot be among the kwargs"
    if is_users(function.name):
        return
    members = member_names(function.name)
    if not REWARDS.keys() >= set(members):
        yield f"there is no reward '{function.name}'{_did_you_mean(function.name)}"
        return
    yield from _kwarg_problems(function, members)


def _kwarg_problems(function: RewardFunction, members: tuple[str, ...]) -> Iterator[str]:
    """A set accepts a keyword argument if one of its members does."""
    accepted = frozenset().union(*map(accepted_kwargs, members))
    required = frozenset().union(*map(required_kwargs, members))
    for kwarg in sorted(set(function.kwargs) - accepted - set(FROM_TRL)):
        yield f"reward '{function.name}' takes no `{kwarg}`; its kwargs are: {', '.join(sorted(accepted)) or 'none'}"
    for kwarg in sorted(required - set(function.kwargs)):
        yield f"reward '{function.name}' needs `{kwarg}` among its kwargs"


def _did_you_mean(name: str) -> str:
    close = closest(name, [*REWARDS, *REWARD_SETS])
    return f"; did you mean '{close}'?" if close else ""
