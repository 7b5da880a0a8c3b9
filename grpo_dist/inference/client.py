"""Client of one rollout server: every call has a time-out, and its error says whether another server may succeed.

`middleware.py` documents the routes and their answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutError
from grpo_dist.inference.adapters import FILES
from grpo_dist.inference.wire_format import Frame, FrameDecoder

Result = TypeVar("Result")
TRANSIENT = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
STATUS_SECONDS = 5.0


class ReplicaFailed(Exception):
    """The server failed; another one, or the same one later, may succeed."""


class UnknownAdapter(Exception):
    """The server does not have this adapter: it was restarted, or no sync reached it."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, and how many completions to sample; the i-th with `seed + i`."""

    token_ids: tuple[int, ...]
    n: int
    seed: int


@dataclass(frozen=True)
class Sampled:
    """One completion: token ids, the log-probability of each (NaN if unknown), and whether the length limit cut it."""

    token_ids: list[int]
    logprobs: list[float]
    clipped: bool
    server: str = field(default="", compare=False)
    """Name of the server that sampled it; empty for an engine of this process."""


@dataclass(frozen=True)
class Policy:
    """An adapter under the name the servers know. Every content gets a new name, so a name is never stale."""

    name: str
    step: int
    """Optimizer steps it was trained for."""
    directory: Path
    size: int
    """Bytes of its files together."""


class Client:
    """Calls to one server; clients of one process share a session.

    Every method raises ReplicaFailed when the server is gone, frozen, broken or slow, and RolloutError when it refuses
    a request that any other server would refuse too.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, timeouts: TimeoutSection) -> None:
        self.session, self.url, self.timeouts = session, url, timeouts

    async def status(self) -> dict[str, Any]:
        """The answer of `GET /grpo-dist/status`."""
        return await self._json("GET", "/grpo-dist/status", STATUS_SECONDS)

    async def generate(
        self, prompt: Prompt, policy: str | None, sampling: Mapping[str, Any], on_frame: Callable[[Frame], None]
    ) -> list[Sampled]:
        """Sample `prompt.n` completions, in order. Without a policy the base model answers.

        Args:
            on_frame: called with every frame as it arrives.

        Raises:
            UnknownAdapter: the server does not have the policy.
        """
        completions = [_PartialCompletion() for _ in range(prompt.n)]
        body = {"adapter": policy, "prompt_token_ids": prompt.token_ids, "n": prompt.n, "seed": prompt.seed}
        request = self.session.post(
            f"{self.url}/grpo-dist/generate",
            json={**body, "sampling": dict(sampling)},
            timeout=aiohttp.ClientTimeout(total=self.timeouts.request, sock_connect=self.timeouts.connect),
        )
        decoder = FrameDecoder()
        try:
            async with await self._wait(request, self.timeouts.first_token) as response:
                await _raise_for_status(response)
                limit = self.timeouts.first_token
                while data := await self._wait(response.content.readany(), limit):
                    limit = self.timeouts.progress
                    for frame in decoder.feed(data):
                        completions[frame.index].add(frame)
                        on_frame(frame)
        except TRANSIENT as error:
            raise ReplicaFailed(_describe(error)) from error
        if not all(one.finished for one in completions):
            raise ReplicaFailed("the answer ended before all completions did")
        return [Sampled(one.token_ids, one.logprobs, one.clipped) for one in completions]

    async def load(self, policy: Policy, *, push: bool) -> None:
        """Load an adapter on the server; does nothing if it is loaded already.

        Args:
            push: send the files over HTTP, instead of letting the server read `policy.directory`.
        """
        if policy.name in (await self.status())["adapters"]:
            return
        limit, route = self.timeouts.sync, f"/grpo-dist/adapters/{policy.name}"
        if push:
            for file in FILES:
                data = (policy.directory / file).read_bytes()
                digest = {"X-Sha256": sha256(data).hexdigest()}
                await self._json("PUT", f"{route}/{file}", limit, data=data, headers=digest)
        body = {"path": None if push else str(policy.directory), "wait_seconds": limit / 2}
        await self._json("POST", route, limit, json=body)

    async def unload(self, policy: str) -> None:
        """Unload an adapter, and remove its pushed files from the server's disk."""
        await self._json("DELETE", f"/grpo-dist/adapters/{policy}", self.timeouts.sync)

    async def _wait(self, awaitable: Awaitable[Result], silence: float) -> Result:
        """Wait for the result. After `silence` seconds, keep waiting only while the server reports a working engine.

        A request may be silent for long with good reason: it waits in the queue, or was preempted by others.
        """
        task = asyncio.ensure_future(awaitable)
        try:
            while not (await asyncio.wait({task}, timeout=silence))[0]:
                stalled = (await self.status())["stalled_seconds"]
                if stalled > self.timeouts.progress:
                    raise ReplicaFailed(f"its engine has produced nothing for {stalled:.0f} s")
                silence = min(silence, STATUS_SECONDS)
            return task.result()
        finally:
            task.cancel()

    async def _json(self, method: str, route: str, limit: float, **body: Any) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=self.timeouts.connect)
        try:
            async with self.session.request(method, self.url + route, timeout=timeout, **body) as response:
                await _raise_for_status(response)
                return await response.json()
        except TRANSIENT as error:
            raise ReplicaFailed(_describe(error)) from error


class _PartialCompletion:
    """One completion while it arrives."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finished = self.clipped = False

    def add(self, frame: Frame) -> None:
        self.token_ids.extend(frame.token_ids)
        self.logprobs.extend(frame.logprobs)
        self.finished = frame.finish != 0
        self.clipped = frame.finish == 2


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    try:
        reason = (await response.json())["error"]
    except (aiohttp.ContentTypeError, ValueError, KeyError, TypeError):
        reason = response.reason
    url = f"{response.url.scheme}://{response.url.host}:{response.url.port}"
    if response.status == 401:
        raise RolloutError(
            f"the rollout server at {url} does not take this run's key: it belongs to another run",
            hint="stop what listens there, or start the run again: its servers then take other ports",
        )
    if response.status == 404 and response.url.path == "/grpo-dist/generate":
        raise UnknownAdapter(str(reason))
    if response.status in (400, 409, 413, 422):
        raise RolloutError(f"the rollout server at {url} refuses: {reason}", hint=_hint(str(reason)))
    raise ReplicaFailed(f"{response.status}: {reason}")


def _hint(reason: str) -> str:
    if "length" in reason or "too long" in reason:
        return "prompt and completion together are too long: lower data.max_prompt_length or grpo.max_completion_length"
    if "NaN" in reason:
        return "training has diverged: start again with a lower grpo.learning_rate or grpo.max_grad_norm"
    return "the server's log has more (logs/attempt-N/replica-*.log in the run directory)"


def _describe(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer within the time allowed"
    return str(error) or type(error).__name__
