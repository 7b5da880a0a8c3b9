"""All rollout servers of a run as one pool, seen from one process.

A prompt goes to the server with the least outstanding work; if a server fails, its prompts go to the others, and it is
used again once it answers and has the newest adapter. Which server samples a completion makes no difference: the seed
depends on the place of the prompt in the batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
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
    """Tokens this process may still receive from it."""
    completions: int = 0
    """Completions of requests that are not finished."""
    down: bool = False
    failure: str = ""
    """Why it is down."""
    pause: float = 0.0
    """Seconds between the last two attempts to reach it."""
    retry_at: float = 0.0
    """Monotonic time of the next attempt."""

    def wait_longer(self) -> None:
        """Schedule the next attempt after twice the last pause."""
        first, longest = BACK_OFF_SECONDS
        self.pause = min(2 * self.pause, longest) if self.pause else first
        self.retry_at = time.monotonic() + self.pause


class OutstandingTokens:
    """The tokens one request may still bring, counted in its server's `outstanding`."""

    def __init__(self, replica: ReplicaConnection, n: int, max_tokens: int) -> None:
        self.replica, self.remaining = replica, [max_tokens] * n
        replica.outstanding += n * max_tokens
        replica.completions += n

    def on_frame(self, frame: Frame) -> None:
        received = (
            self.remaining[frame.index] if frame.finish else min(len(frame.token_ids), self.remaining[frame.index])
        )
        self.remaining[frame.index] -= received
        self.replica.outstanding -= received

    def release(self) -> None:
        self.replica.outstanding -= sum(self.remaining)
        self.replica.completions -= len(self.remaining)


REGISTRY_POLL_SECONDS = 2.0
"""While all servers are down: between two checks whether their supervisors have given up."""


class ReplicaRecovery:
    """Waits for failed servers to return while the others work, during one round of calls.

    Args:
        registry: the directory with the state of every server.
        policy: the adapter a server must have before it is used again.
        push: send the adapter over HTTP.
    """

    def __init__(
        self,
        replicas: Sequence[ReplicaConnection],
        registry: Path,
        timeouts: TimeoutSection,
        session: aiohttp.ClientSession,
        policy: Policy | None,
        *,
        push: bool,
    ) -> None:
        self.replicas, self.registry, self.timeouts = replicas, registry, timeouts
        self.session, self.policy, self.push = session, policy, push
        self.tasks: dict[asyncio.Task[None], ReplicaConnection] = {}
        self.all_down_since: float | None = None
        self.any_returned = False
        for replica in replicas:
            if replica.down:
                self._start_waiting(replica)

    def start(self, replica: ReplicaConnection, failure: ReplicaFailed) -> None:
        """Mark a server as down until it answers again."""
        if not replica.down:
            say(f"rollout server {replica.name} failed ({failure}); its work goes to the others")
            replica.down, replica.failure, replica.pause = True, str(failure), 0.0
            replica.wait_longer()
            self._start_waiting(replica)

    async def wait(self, running: Mapping[asyncio.Task[Any], Any]) -> list[asyncio.Task[Any]]:
        """The tasks of `running` that are done; none if a server came back first, or for a while if all are down.

        Raises:
            RolloutsGone: all servers are down, and none came back in time.
        """
        left = self._seconds_left()
        if left == 0.0:
            raise self._rollouts_gone(f"none came back within {self.timeouts.recover:.0f} s")
        limit = None if left is None else min(left, REGISTRY_POLL_SECONDS)
        done, _ = await asyncio.wait({*running, *self.tasks}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        for task in done & self.tasks.keys():
            replica = self.tasks.pop(task)
            task.result()
            replica.down, self.any_returned = False, True
            say(f"rollout server {replica.name} is back")
        return [task for task in done if task in running]

    def _seconds_left(self) -> float | None:
        """Seconds left for a server to come back when all are down; None while any is up."""
        if not all(replica.down for replica in self.replicas):
            self.all_down_since = None
            return None
        if all(entry.state == "dropped" for entry in read_replicas(self.registry)):
            raise self._rollouts_gone("they were given up after too many restarts")
        self.all_down_since = self.all_down_since or time.monotonic()
        return max(0.0, self.all_down_since + self.timeouts.recover - time.monotonic())

    def _rollouts_gone(self, why: str) -> RolloutsGone:
        failures = "; ".join(f"{replica.name}: {replica.failure}" for replica in self.replicas)
        return RolloutsGone(
            f"all {len(self.replicas)} rollout servers are gone ({failures}); {why}",
            hint="their logs say why (logs/attempt-N/replica-*.log in the run directory); then continue with --resume",
        )

    def _start_waiting(self, replica: ReplicaConnection) -> None:
        self.tasks[asyncio.create_task(self._wait_until_back(replica))] = replica

    async def _wait_until_back(self, replica: ReplicaConnection) -> None:
        """Return when the server answers and has the newest adapter."""
        while True:
            await asyncio.sleep(max(0.0, replica.retry_at - time.monotonic()))
            entries = {entry.name: entry for entry in read_replicas(self.registry)}
            entry = entries.get(replica.name)
            if entry is not None and entry.state == "ready":
                replica.url = entry.url  # a restarted server may listen at another port
                client = Client(self.session, entry.url, self.timeouts)
                try:
                    await client.status()
                    if self.policy is not None:
                        await client.load(self.policy, push=self.push)
                    return
                except ReplicaFailed as failure:
                    replica.failure = str(failure)
            replica.wait_longer()


Result = TypeVar("Result")


class Pool:
    """The servers of a run, for one process of the run.

    Args:
        registry: the run's directory of servers (`registry.py`); read again whenever one has failed.
        rank: this process's rank; of equally free servers, different ranks choose different ones.
        completions_per_replica: most completions this process requests from one server at a time. Further prompts wait
            for the next server with room, so that slow and fast servers finish together.
        push: send adapters over HTTP, instead of letting the servers read them from the run directory.
    """

    def __init__(
        self, registry: Path, timeouts: TimeoutSection, *, rank: int, completions_per_replica: int, push: bool
    ) -> None:
        self.registry, self.timeouts, self.rank = registry, timeouts, rank
        self.completions_per_replica, self.push = completions_per_replica, push
        self.headers = {"Authorization": f"Bearer {read_key(registry)}"}
        self.replicas = [ReplicaConnection(entry.name, entry.url) for entry in read_replicas(registry)]

    def generate(
        self, prompts: Sequence[Prompt], policy: Policy | None, sampling: Mapping[str, Any]
    ) -> list[list[Sampled]]:
        """The completions of each prompt, in the order of the prompts.

        Raises:
            RolloutsGone: no server answered for `timeouts.recover` seconds.
            RolloutError: a request was refused.
        """
        return asyncio.run(self._generate(prompts, policy, sampling))

    def begin(
        self, prompts: Sequence[Prompt], policy: Policy, sampling: Mapping[str, Any]
    ) -> Future[tuple[list[list[Sampled]], float]]:
        """As `generate`, without waiting; one at a time. The result is the completions and the seconds they took;
        cancelling it ends the requests."""

        async def timed() -> tuple[list[list[Sampled]], float]:
            began = time.monotonic()
            return await self._generate(prompts, policy, sampling), time.monotonic() - began

        return asyncio.run_coroutine_threadsafe(timed(), _background())

    def load(self, policy: Policy) -> None:
        """Load the adapter on every server that answers; the others get it when they are back.

        Raises:
            RolloutsGone: none took it for `timeouts.recover` seconds.
        """
        asyncio.run(self._load(policy))

    def unload_others(self, kept: Iterable[Policy]) -> None:
        """Unload all other adapters from every server that answers; a killed attempt leaves some behind."""
        names = {policy.name for policy in kept}

        async def unload(client: Client) -> None:
            for name in (await client.status())["adapters"]:
                if name not in names:
                    await client.unload(name)

        asyncio.run(self._each(unload))

    def ask_all(
        self, prompts: Sequence[Prompt], policy: Policy, sampling: Mapping[str, Any]
    ) -> dict[str, list[Sampled]]:
        """Server name → the completions of all prompts in order, from each server that answers."""

        async def ask(client: Client) -> list[Sampled]:
            groups = [await client.generate(prompt, policy.name, sampling, lambda _: None) for prompt in prompts]
            return [sampled for group in groups for sampled in group]

        return asyncio.run(self._each(ask))

    def status(self) -> dict[str, dict[str, Any]]:
        """Server name → status, for each server that answers."""
        return asyncio.run(self._each(Client.status))

    async def _generate(
        self, prompts: Sequence[Prompt], policy: Policy | None, sampling: Mapping[str, Any]
    ) -> list[list[Sampled]]:
        results: list[list[Sampled] | None] = [None] * len(prompts)
        waiting, running = deque(range(len(prompts))), {}
        loading = defaultdict(asyncio.Lock)
        async with (
            self._session() as session,
            self._recovery(session, policy) as recovery,
            _cancelled_at_the_end(running),
        ):
            while any(result is None for result in results):
                while waiting and (replica := self._least_loaded()) is not None:
                    index = waiting.popleft()
                    outstanding = OutstandingTokens(replica, prompts[index].n, sampling["max_tokens"])
                    ask = self._ask(session, outstanding, prompts[index], policy, sampling, loading[replica])
                    running[asyncio.create_task(ask)] = (index, replica)
                for task in await recovery.wait(running):
                    index, replica = running.pop(task)
                    try:
                        results[index] = [replace(one, server=replica.name) for one in task.result()]
                    except ReplicaFailed as failure:
                        waiting.appendleft(index)
                        recovery.start(replica, failure)
        return results

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        outstanding: OutstandingTokens,
        prompt: Prompt,
        policy: Policy | None,
        sampling: Mapping[str, Any],
        loading: asyncio.Lock,
    ) -> list[Sampled]:
        client = Client(session, outstanding.replica.url, self.timeouts)
        try:
            while True:
                try:
                    return await client.generate(prompt, policy and policy.name, sampling, outstanding.on_frame)
                except UnknownAdapter as error:  # it was restarted since the last sync
                    if policy is None:
                        raise ReplicaFailed(str(error)) from error
                    async with loading:  # all requests to that server fail together, and one of them loads the adapter
                        await client.load(policy, push=self.push)
        finally:
            outstanding.release()

    async def _load(self, policy: Policy) -> None:
        async with self._session() as session:
            returned = await self._returned(session)
            tasks = {
                asyncio.create_task(Client(session, replica.url, self.timeouts).load(policy, push=self.push)): replica
                for replica in self.replicas
                if not replica.down
            }
            async with self._recovery(session, policy) as recovery, _cancelled_at_the_end(tasks):
                loaded = False
                while tasks or not loaded:
                    for task in await recovery.wait(tasks):
                        replica = tasks.pop(task)
                        try:
                            task.result()
                            loaded = True
                            if replica in returned:
                                say(f"rollout server {replica.name} is back")
                        except ReplicaFailed as failure:
                            recovery.start(replica, failure)
                    # A server that came back has the adapter.
                    loaded = loaded or recovery.any_returned

    async def _returned(self, session: aiohttp.ClientSession) -> list[ReplicaConnection]:
        """Mark servers that were down and answer again as up, and return them; rounds may be too short to notice."""
        entries = {entry.name: entry for entry in read_replicas(self.registry) if entry.state == "ready"}
        due = [r for r in self.replicas if r.down and r.name in entries and r.retry_at <= time.monotonic()]
        for replica in due:
            replica.url = entries[replica.name].url
        asked = (Client(session, replica.url, self.timeouts).status() for replica in due)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        returned = []
        for replica, answer in zip(due, answers, strict=True):
            if isinstance(answer, ReplicaFailed):
                replica.wait_longer()
            elif isinstance(answer, BaseException):
                raise answer
            else:
                replica.down = False
                returned.append(replica)
        return returned

    async def _each(self, call: Callable[[Client], Awaitable[Result]]) -> dict[str, Result]:
        """Server name → result of the call; servers that fail are left out."""
        async with self._session() as session:
            replicas = [replica for replica in self.replicas if not replica.down]
            calls = (call(Client(session, replica.url, self.timeouts)) for replica in replicas)
            answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ReplicaFailed | UnknownAdapter):
                raise answer
        return {
            replica.name: answer
            for replica, answer in zip(replicas, answers, strict=True)
            if not isinstance(answer, BaseException)
        }

    def _least_loaded(self) -> ReplicaConnection | None:
        """The server with the fewest outstanding tokens, if any has room."""
        count = len(self.replicas)
        ready = [
            (replica.outstanding, (place - self.rank) % count, replica)
            for place, replica in enumerate(self.replicas)
            if not replica.down and replica.completions < self.completions_per_replica
        ]
        return min(ready, key=lambda entry: entry[:2])[2] if ready else None

    @asynccontextmanager
    async def _recovery(self, session: aiohttp.ClientSession, policy: Policy | None) -> AsyncIterator[ReplicaRecovery]:
        recovery = ReplicaRecovery(self.replicas, self.registry, self.timeouts, session, policy, push=self.push)
        async with _cancelled_at_the_end(recovery.tasks):
            yield recovery

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self.headers, connector=aiohttp.TCPConnector(limit=0))


@cache
def _background() -> asyncio.AbstractEventLoop:
    """The loop of a thread that does not keep the process alive."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rollouts", daemon=True).start()
    return loop


@asynccontextmanager
async def _cancelled_at_the_end(tasks: Mapping[asyncio.Task[Any], Any]) -> Any:
    """Cancel all tasks at the end: after an error the servers notice it and stop sampling for the others."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
