"""A reward ready to be handed to TRL: its arguments bound, its mistakes reported."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import GrpoDistError
from grpo_dist.rewards.guard import Batch, check_rewards, reward_error
from grpo_dist.rewards.names import FROM_TRL, metric_name
from grpo_dist.rewards.own import own, own_columns, random_numbers_apart
from grpo_dist.rewards.resolve import parameters_of

FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""What a reward may raise; a SystemExit that passed would end the run without a word, with exit code 0 even."""
RIGHT_ANSWERS = frozenset({"answer", "answers", "solution", "ground_truth", "target", "label", "reference"})
"""Usual names of the column with right answers."""


@dataclass(frozen=True)
class LoadedReward:
    """A reward function with TRL's signature: `f(prompts, completions, **columns) -> list[float | None]`.

    The function gets copies, so that what it changes reaches neither the next function nor what is stored, and random
    numbers apart from the trainer's. Raises RewardError, with the completion at fault, when the function raises or does
    not return one finite number or None per completion.
    """

    name: str
    """The name in the configuration."""
    weight: float
    """Factor in the sum of rewards."""
    function: Callable
    kwargs: Mapping[str, Any]
    """Keyword arguments of every call; they win over columns of the same name."""
    watch: Callable[[str, Batch], AbstractContextManager[None]] = lambda _name, _batch: nullcontext()
    """Entered around every call, with the name of the reward and what it is called with."""

    @property
    def __name__(self) -> str:
        """The name TRL uses in its metrics: `rewards/<__name__>/mean`."""
        return metric_name(self.name)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns the data set must have: parameters without a default that nothing else provides."""
        return tuple(p.name for p in self._column_parameters() if p.default is p.empty)

    @property
    def asks_for_columns(self) -> bool:
        """Whether its parameters, or its code, name a column of the data; as far as can be told."""
        constants = getattr(getattr(self.function, "__code__", None), "co_consts", ())
        named = {p.name for p in self._column_parameters()} | {one for one in constants if isinstance(one, str)}
        return bool(self.columns or named & RIGHT_ANSWERS)

    def _column_parameters(self) -> list[inspect.Parameter]:
        named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        taken = {*FROM_TRL, *self.kwargs}
        return [p for p in parameters_of(self.function) if p.kind in named and p.name not in taken]

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        with self._apart(batch):
            try:
                return check_rewards(self._call(batch), len(batch))
            except GrpoDistError:
                raise
            except FAILURES as error:
                raise reward_error(self.name, self.function, batch, error, self._first_failing(batch)) from error

    @contextmanager
    def _apart(self, batch: Batch):
        with random_numbers_apart(f"{self.name} {batch.step}"), self.watch(self.name, batch):
            yield

    def _call(self, batch: Batch) -> Any:
        arguments = {**own_columns(batch.columns), **own(dict(self.kwargs))}
        return self.function(prompts=own(batch.prompts), completions=own(batch.completions), **arguments)

    def _first_failing(self, batch: Batch) -> int | None:
        """The first completion that fails on its own, None when each succeeds alone."""
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(self._call(single), 1)
            except FAILURES:
                return index
        return None


class AsyncLoadedReward(LoadedReward):
    """The same for `async def` functions, which TRL runs concurrently."""

    async def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        batch = Batch(prompts, completions, columns)
        with self._apart(batch):
            try:
                return check_rewards(await self._call(batch), len(batch))
            except GrpoDistError:
                raise
            except FAILURES as error:
                raise reward_error(self.name, self.function, batch, error, await self._first_failing(batch)) from error

    async def _first_failing(self, batch: Batch) -> int | None:
        for index, single in enumerate(batch.singles()):
            try:
                check_rewards(await self._call(single), 1)
            except FAILURES:
                return index
        return None
