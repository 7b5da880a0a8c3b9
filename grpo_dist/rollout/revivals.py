"""Waiting for servers that failed, while the others work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutsGone
from grpo_dist.progress import say
from grpo_dist.rollout.client import Client, Policy, ReplicaFailed
from grpo_dist.rollout.members import Member
from grpo_dist.rollout.registry import read_replicas

LOOK_SECONDS = 2.0
"""Between two looks, while all are down, whether anybody still keeps them."""


class Revivals:
    """Servers that failed, and the waiting for their return, for one round of calls.

    Args:
        registry: where they say how they are.
        policy: the adapter a server is given before it counts as back.
        push: over HTTP.
    """

    def __init__(
        self,
        members: Sequence[Member],
        registry: Path,
        timeouts: TimeoutSection,
        session: aiohttp.ClientSession,
        policy: Policy | None,
        *,
        push: bool,
    ) -> None:
        self.members, self.registry, self.timeouts = members, registry, timeouts
        self.session, self.policy, self.push = session, policy, push
        self.tasks: dict[asyncio.Task[None], Member] = {}
        self.alone_since: float | None = None
        self.revived = False
        for member in members:
            if member.down:
                self._begin(member)

    def start(self, member: Member, failure: ReplicaFailed) -> None:
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

    def _begin(self, member: Member) -> None:
        self.tasks[asyncio.create_task(self._revive(member))] = member

    async def _revive(self, member: Member) -> None:
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
