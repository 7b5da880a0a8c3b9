"""All rollout servers of a run as one: work goes to whoever is free, and from whoever fails to the others.

Which server samples a completion changes nothing about it: its seed belongs to its place in the batch.

The servers of a pool as one process knows them: what each owes it, and which of them do not answer.

Waiting for servers that failed, while the others work.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutsGone
from grpo_dist.inference.client import Client, Policy, Prompt, ReplicaFailed, Sampled, UnknownAdapter
from grpo_dist.inference.registry import read_key, read_replicas
from grpo_dist.inference.wire_format import Frame
from grpo_dist.progress import say

BACK_OFF_SECONDS = (0.5, 10.0)
"""First and longest pause between two attempts to reach a server that failed."""


@dataclass(eq=False)
class ReplicaConnection:
    """One server as this process knows it."""

    name: str
    url: str
    outstanding: int = 0
    """Tokens this process may still get from it."""
    completions: int = 0
    """Of requests it has not answered to the end."""
    down: bool = False
    failure: str = ""
    """Why it was counted out."""
    pause: float = 0.0
    """Seconds between the last two attempts to reach it, and `retry_at` (monotonic) the next."""
    retry_at: float = 0.0

    def wait_longer(self) -> None:
        first, longest = BACK_OFF_SECONDS
        self.pause = min(2 * self.pause, longest) if self.pause else first
        self.retry_at = time.monotonic() + self.pause


class OutstandingTokens:
    """What one request may still bring, counted at its server."""

    def __init__(self, member: ReplicaConnection, n: int, max_tokens: int) -> None:
        self.member, self.left = member, [max_tokens] * n
        member.outstanding += n * max_tokens
        member.completions += n

    def received(self, frame: Frame) -> None:
        paid = self.left[frame.index] if frame.finish else min(len(frame.token_ids), self.left[frame.index])
        self.left[frame.index] -= paid
        self.member.outstanding -= paid

    def settle(self) -> None:
        self.member.outstanding -= sum(self.left)
        self.member.completions -= len(self.left)


LOOK_SECONDS = 2.0
"""Between two looks, while all are down, whether anybody still keeps them."""


class ReplicaRecovery:
    """Servers that failed, and the waiting for their return, for one round of calls.

    Args:
        registry: where they say how they are.
        policy: the adapter a server is given before it counts as back.
        push: over HTTP.
    """

    def __init__(
        self,
        members: Sequence[ReplicaConnection],
        registry: Path,
        timeouts: TimeoutSection,
        session: aiohttp.ClientSession,
        policy: Policy | None,
        *,
        push: bool,
    ) -> None:
        self.members, self.registry, self.timeouts = members, registry, timeouts
        self.session, self.policy, self.push = session, policy, push
        self.tasks: dict[asyncio.Task[None], ReplicaConnection] = {}
        self.alone_since: float | None = None
        self.revived = False
        for member in members:
            if member.down:
                self._begin(member)

    def start(self, member: ReplicaConnection, failure: ReplicaFailed) -> None:
        """Count a server out until it answers again."""
        if not member.down:
            say(f"rollout server {member.name} failed ({failure}); its work goes to the others")
            member.down, member.failure, member.pause = True, str(failure), 0.0
            member.wait_longer()
            self._begin(member)

    async def wait(self, running: Mapping[asyncio.Task[Any], Any]) -> list[asyncio.Task[Any]]:
        """Tasks of `running` that are done; empty when a server came back instead, or now and then when all are down.

        Raises:
            RolloutsGone: all servers are down, and none came back in time.
        """
        patience = self._patience()
        if patience == 0.0:
            raise self._gone(f"none came back within {self.timeouts.recover:.0f} s")
        limit = None if patience is None else min(patience, LOOK_SECONDS)
        done, _ = await asyncio.wait({*running, *self.tasks}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        for task in done & self.tasks.keys():
            member = self.tasks.pop(task)
            task.result()
            member.down, self.revived = False, True
            say(f"rollout server {member.name} is back")
        return [task for task in done if task in running]

    def _patience(self) -> float | None:
        """Seconds left for one to come back when all are down; None while any is up."""
        if not all(member.down for member in self.members):
            self.alone_since = None
            return None
        if all(entry.state == "dropped" for entry in read_replicas(self.registry)):
            raise self._gone("they were given up after too many restarts")
        self.alone_since = self.alone_since or time.monotonic()
        return max(0.0, self.alone_since + self.timeouts.recover - time.monotonic())

    def _gone(self, why: str) -> RolloutsGone:
        failures = "; ".join(f"{member.name}: {member.failure}" for member in self.members)
        return RolloutsGone(
            f"all {len(self.members)} rollout servers are gone ({failures}); {why}",
            hint="their logs say why (logs/attempt-N/replica-*.log in the run directory); then continue with --resume",
        )

    def _begin(self, member: ReplicaConnection) -> None:
        self.tasks[asyncio.create_task(self._revive(member))] = member

    async def _revive(self, member: ReplicaConnection) -> None:
        """Ends when the server answers and has the newest adapter."""
        while True:
            await asyncio.sleep(max(0.0, member.retry_at - time.monotonic()))
            entries = {entry.name: entry for entry in read_replicas(self.registry)}
            entry = entries.get(member.name)
            if entry is not None and entry.state == "ready":
                member.url = entry.url  # it may have had to take another port
                client = Client(self.session, entry.url, self.timeouts)
                try:
                    await client.status()
                    if self.policy is not None:
                        await client.load(self.policy, push=self.push)
                    return
                except ReplicaFailed as failure:
                    member.failure = str(failure)
            member.wait_longer()


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
        self.members = [ReplicaConnection(entry.name, entry.url) for entry in read_replicas(registry)]

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
                    debt = OutstandingTokens(member, prompts[index].n, sampling["max_tokens"])
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
        debt: OutstandingTokens,
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

    async def _returned(self, session: aiohttp.ClientSession) -> list[ReplicaConnection]:
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

    def _freest(self) -> ReplicaConnection | None:
        """The server that owes this process the fewest tokens, if any has room."""
        count = len(self.members)
        ready = [
            (member.outstanding, (place - self.rank) % count, member)
            for place, member in enumerate(self.members)
            if not member.down and member.completions < self.completions_per_replica
        ]
        return min(ready, key=lambda entry: entry[:2])[2] if ready else None

    def _revivals(self, session: aiohttp.ClientSession, policy: Policy | None) -> ReplicaRecovery:
        return ReplicaRecovery(self.members, self.registry, self.timeouts, session, policy, push=self.push)

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
