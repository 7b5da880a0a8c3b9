"""One rollout server as its callers see it: every call has an end, and says whether to try elsewhere.

The routes and their answers stand in `rollout/endpoint.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
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
    """The server did not do its part; another one, or the same one later, may."""


class UnknownAdapter(Exception):
    """The server does not have the adapter asked for: it was started again, or never reached by a sync."""


@dataclass(frozen=True)
class Prompt:
    """Token ids, and how many completions of them to sample; the i-th with `seed + i`."""

    token_ids: tuple[int, ...]
    n: int
    seed: int


@dataclass(frozen=True)
class Sampled:
    """One completion: token ids, the log-probability each was sampled with (NaN where unknown), whether it was cut."""

    token_ids: list[int]
    logprobs: list[float]
    clipped: bool


@dataclass(frozen=True)
class Policy:
    """An adapter under the name the servers know it by: fresh for every content, so a name is never stale."""

    name: str
    step: int
    """Optimizer steps it has behind it."""
    directory: Path
    size: int
    """Bytes of its files."""


class Client:
    """Calls to one server; the session is shared by all clients of a process's round.

    Every method raises ReplicaFailed when the server is gone, frozen, broken or slow, RolloutError when it refuses what
    it was asked and any other would too.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, timeouts: TimeoutSection) -> None:
        self.session, self.url, self.timeouts = session, url, timeouts

    async def status(self) -> dict[str, Any]:
        """What the server is and does."""
        return await self._json("GET", "/grpo-dist/status", STATUS_SECONDS)

    async def generate(
        self, prompt: Prompt, policy: str | None, sampling: Mapping[str, Any], received: Callable[[Frame], None]
    ) -> list[Sampled]:
        """`prompt.n` completions, in order. Without a policy the base model answers.

        Args:
            received: told of every piece as it comes.

        Raises:
            UnknownAdapter: the server does not have the policy.
        """
        answers = [_Answer() for _ in range(prompt.n)]
        body = {"adapter": policy, "prompt_token_ids": prompt.token_ids, "n": prompt.n, "seed": prompt.seed}
        request = self.session.post(
            f"{self.url}/grpo-dist/generate",
            json={**body, "sampling": dict(sampling)},
            timeout=aiohttp.ClientTimeout(total=self.timeouts.request, sock_connect=self.timeouts.connect),
        )
        decoder = FrameDecoder()
        try:
            async with await self._alive(request, self.timeouts.first_token) as response:
                await _refuse(response)
                limit = self.timeouts.first_token
                while data := await self._alive(response.content.readany(), limit):
                    limit = self.timeouts.progress
                    for frame in decoder.feed(data):
                        answers[frame.index].add(frame)
                        received(frame)
        except TRANSIENT as error:
            raise ReplicaFailed(_words(error)) from error
        if not all(answer.finished for answer in answers):
            raise ReplicaFailed("the answer ended before all completions did")
        return [Sampled(answer.token_ids, answer.logprobs, answer.clipped) for answer in answers]

    async def load(self, policy: Policy, *, push: bool) -> None:
        """Give the server an adapter; once it is there, again does nothing."""
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
        """Take an adapter from the server, and what was pushed of it from its disk."""
        await self._json("DELETE", f"/grpo-dist/adapters/{policy}", self.timeouts.sync)

    async def _alive(self, awaitable: Awaitable[Result], silence: float) -> Result:
        """Wait. After `silence` seconds without a word, go on only while the server says its engine is at work.

        One request may rightly be silent for long: it waits for room, or gives way to others.
        """
        task = asyncio.ensure_future(awaitable)
        try:
            while not (await asyncio.wait({task}, timeout=silence))[0]:
                stalled = (await self.status())["stalled_seconds"]
                if stalled > self.timeouts.progress:
                    raise ReplicaFailed(f"its engine has brought forth nothing for {stalled:.0f} s")
                silence = min(silence, STATUS_SECONDS)
            return task.result()
        finally:
            task.cancel()

    async def _json(self, method: str, route: str, limit: float, **body: Any) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=self.timeouts.connect)
        try:
            async with self.session.request(method, self.url + route, timeout=timeout, **body) as response:
                await _refuse(response)
                return await response.json()
        except TRANSIENT as error:
            raise ReplicaFailed(_words(error)) from error


class _Answer:
    """One completion as it grows."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finished = self.clipped = False

    def add(self, frame: Frame) -> None:
        self.token_ids.extend(frame.token_ids)
        self.logprobs.extend(frame.logprobs)
        self.finished = frame.finish != 0
        self.clipped = frame.finish == 2


async def _refuse(response: aiohttp.ClientResponse) -> None:
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
        raise RolloutError(f"the rollout server at {url} refuses: {reason}", hint=_advice(str(reason)))
    raise ReplicaFailed(f"{response.status}: {reason}")


def _advice(reason: str) -> str:
    if "length" in reason or "too long" in reason:
        return "prompt and completion together are too long: lower data.max_prompt_length or grpo.max_completion_length"
    if "NaN" in reason:
        return "training has diverged: begin anew with a lower grpo.learning_rate or grpo.max_grad_norm"
    return "the server's log has more (logs/attempt-N/replica-*.log in the run directory)"


def _words(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer within the time allowed"
    return str(error) or type(error).__name__
