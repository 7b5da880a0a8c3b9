"""A reward ready to be handed to TRL: its arguments bound, its mistakes reported."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import GrpoDistError
from grpo_dist.rewards.guard import Batch, check_rewards, reward_error
from grpo_dist.rewards.names import FROM_TRL, metric_name
from grpo_dist.rewards.resolve import parameters_of


@dataclass(frozen=True)
class LoadedReward:
    """A reward function with TRL's signature: `f(prompts, completions, **columns) -> list[float | None]`.

    Raises RewardError, with the completion at fault, when the function raises or does not return one
    finite number or None per completion.
    """

    name: str
    """The name in the configuration."""
    weight: float
    """Factor in the sum of rewards."""
    function: Callable
    kwargs: Mapping[str, Any]
    """Keyword arguments of every call; they win over columns of the same name."""

    @property
    def __name__(self) -> str:
        """The name TRL uses in its metrics: `rewards/<__name__>/mean`."""
        return metric_name(self.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the data set must have: parameters without a default that nothing else provides."""
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p.name for p in parameters_of(self.function) if p.default is p.empty and p.kind in named]
        return tuple(name for name in needed if name not in FROM_TRL and name not in self.kwargs)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        try:
            return check_rewards(self._call(batch), len(batch))
        except GrpoDistError:
            raise
        except Exception as error:
            raise reward_error(self.name, self.function, batch, error, self._first_failing(batch)) from error

    def _call(self, batch: Batch) -> Any:
        arguments = {**batch.columns, **self.kwargs}
        return self.function(prompts=batch.prompts, completions=batch.completions, **arguments)

    def _first_failing(self, batch: Batch) -> int | None:
        """The first completion that fails on its own, None when each succeeds alone."""
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(self._call(single), 1)
            except Exception:
                return index
        return None


class AsyncLoadedReward(LoadedReward):
    """The same for `async def` functions, which TRL runs concurrently."""

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        try:
            return check_rewards(await self._call(batch), len(batch))
        except GrpoDistError:
            raise
        except Exception as error:
            raise reward_error(self.name, self.function, batch, error, await self._first_failing(batch)) from error

    async def _first_failing(self, batch: Batch) -> int | None:
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(await self._call(single), 1)
            except Exception:
                return index
        return None
