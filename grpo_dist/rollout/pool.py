"""All rollout servers of a run as one: work goes to whoever is free, and from whoever fails to the others.

Which server samples a completion changes nothing about it: its seed belongs to its place in the batch.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.progress import say
from grpo_dist.rollout.client import Client, Policy, Prompt, ReplicaFailed, Sampled, UnknownAdapter
from grpo_dist.rollout.members import Debt, Member
from grpo_dist.rollout.registry import read_key, read_replicas
from grpo_dist.rollout.revivals import Revivals

Result = TypeVar("Result")


class Pool:
    """The run's servers, for one process of the run.

    Args:
        registry: the run's directory of servers (`rollout/registry.py`); read again whenever one has failed.
        rank: this process's number; where two servers are equally free, processes choose differently.
        completions_per_replica: when so many that this process asked for are on their way from a server, what is left
            waits and goes to the next one that has room, so that slow and fast servers end together.
        push: adapters are sent over HTTP, not read by the servers from the run directory.
    """

    def __init__(
        self, registry: Path, timeouts: TimeoutSection, *, rank: int, completions_per_replica: int, push: bool
    ) -> None:
        self.registry, self.timeouts, self.rank = registry, timeouts, rank
        self.completions_per_replica, self.push = completions_per_replica, push
        self.headers = {"Authorization": f"Bearer {read_key(registry)}"}
        self.members = [Member(entry.name, entry.url) for entry in read_replicas(registry)]

    def generate(
        self, prompts: Sequence[Prompt], policy: Policy | None, sampling: Mapping[str, Any]
    ) -> list[list[Sampled]]:
        """Completions of each prompt, in the order of the prompts.

        Raises:
            RolloutsGone: no server answered for `timeouts.recover` seconds.
            RolloutError: a request was refused.
        """
        return asyncio.run(self._generate(prompts, policy, sampling))

    def load(self, policy: Policy) -> None:
        """Give every server that answers the adapter; those that do not get it when they are back.

        Raises:
            RolloutsGone: none took it for `timeouts.recover` seconds.
        """
        asyncio.run(self._load(policy))

    def unload_others(self, kept: Policy | None) -> None:
        """Take all adapters but this one from every server that answers; an attempt that was killed leaves some."""

        async def unload(client: Client) -> None:
            for name in (await client.status())["adapters"]:
                if kept is None or name != kept.name:
                    await client.unload(name)

        asyncio.run(self._each(unload))

    def ask_all(
        self, prompts: Sequence[Prompt], policy: Policy, sampling: Mapping[str, Any]
    ) -> dict[str, list[Sampled]]:
        """The completions of all prompts, one after the other, from each server that answers, by its name."""

        async def ask(client: Client) -> list[Sampled]:
            groups = [await client.generate(prompt, policy.name, sampling, lambda _: None) for prompt in prompts]
            return [sampled for group in groups for sampled in group]

        return asyncio.run(self._each(ask))

    def status(self) -> dict[str, dict[str, Any]]:
        """The status of each server that answers, by its name."""
        return asyncio.run(self._each(Client.status))

    async def _generate(
        self, prompts: Sequence[Prompt], policy: Policy | None, sampling: Mapping[str, Any]
    ) -> list[list[Sampled]]:
        results: list[list[Sampled] | None] = [None] * len(prompts)
        waiting, running = deque(range(len(prompts))), {}
        loading = defaultdict(asyncio.Lock)
        async with self._session() as session, _cancelled_at_the_end(running):
            revivals = self._revivals(session, policy)
            while any(result is None for result in results):
                while waiting and (member := self._freest()) is not None:
                    index = waiting.popleft()
                    debt = Debt(member, prompts[index].n, sampling["max_tokens"])
                    ask = self._ask(session, debt, prompts[index], policy, sampling, loading[member])
                    running[asyncio.create_task(ask)] = (index, member)
                for task in await revivals.wait(running):
                    index, member = running.pop(task)
                    try:
                        results[index] = task.result()
                    except ReplicaFailed as failure:
                        waiting.appendleft(index)
                        revivals.start(member, failure)
        return results

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        debt: Debt,
        prompt: Prompt,
        policy: Policy | None,
        sampling: Mapping[str, Any],
        loading: asyncio.Lock,
    ) -> list[Sampled]:
        client = Client(session, debt.member.url, self.timeouts)
        try:
            while True:
                try:
                    return await client.generate(prompt, policy and policy.name, sampling, debt.received)
                except UnknownAdapter as error:  # it was started again since the last sync
                    if policy is None:
                        raise ReplicaFailed(str(error)) from error
                    async with loading:  # all requests there learn of it at a time, and one adapter is enough
                        await client.load(policy, push=self.push)
        finally:
            debt.settle()

    async def _load(self, policy: Policy) -> None:
        async with self._session() as session:
            returned = await self._returned(session)
            revivals = self._revivals(session, policy)
            tasks = {
                asyncio.create_task(Client(session, member.url, self.timeouts).load(policy, push=self.push)): member
                for member in self.members
                if not member.down
            }
            async with _cancelled_at_the_end(tasks):
                loaded = False
                while tasks or not loaded:
                    for task in await revivals.wait(tasks):
                        member = tasks.pop(task)
                        try:
                            task.result()
                            loaded = True
                            if member in returned:
                                say(f"rollout server {member.name} is back")
                        except ReplicaFailed as failure:
                            revivals.start(member, failure)
                    # One that came back has the adapter.
                    loaded = loaded or revivals.revived

    async def _returned(self, session: aiohttp.ClientSession) -> list[Member]:
        """Servers that were down and answer again, now counted in; rounds may be too short to notice them."""
        entries = {entry.name: entry for entry in read_replicas(self.registry) if entry.state == "ready"}
        due = [m for m in self.members if m.down and m.name in entries and m.retry_at <= time.monotonic()]
        for member in due:
            member.url = entries[member.name].url
        asked = (Client(session, member.url, self.timeouts).status() for member in due)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        returned = []
        for member, answer in zip(due, answers, strict=True):
            if isinstance(answer, ReplicaFailed):
                member.wait_longer()
            elif isinstance(answer, BaseException):
                raise answer
            else:
                member.down = False
                returned.append(member)
        return returned

    async def _each(self, call: Callable[[Client], Awaitable[Result]]) -> dict[str, Result]:
        """What every server answers; those that fail are left out."""
        async with self._session() as session:
            members = [member for member in self.members if not member.down]
            calls = (call(Client(session, member.url, self.timeouts)) for member in members)
            answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ReplicaFailed | UnknownAdapter):
                raise answer
        return {m.name: a for m, a in zip(members, answers, strict=True) if not isinstance(a, BaseException)}

    def _freest(self) -> Member | None:
        """The server that owes this process the fewest tokens, if any has room."""
        count = len(self.members)
        ready = [
            (member.outstanding, (place - self.rank) % count, member)
            for place, member in enumerate(self.members)
            if not member.down and member.completions < self.completions_per_replica
        ]
        return min(ready, key=lambda entry: entry[:2])[2] if ready else None

    def _revivals(self, session: aiohttp.ClientSession, policy: Policy | None) -> Revivals:
        return Revivals(self.members, self.registry, self.timeouts, session, policy, push=self.push)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self.headers, connector=aiohttp.TCPConnector(limit=0))


@asynccontextmanager
async def _cancelled_at_the_end(tasks: Mapping[asyncio.Task[Any], Any]) -> Any:
    """An error of one request ends the others; the servers notice and stop sampling for them."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
