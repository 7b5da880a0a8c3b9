"""By when a job must have ended: Slurm is asked, since neither limit nor signal need be those of the configuration."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path

from grpo_dist.run.control import Why, read_start, request_stop, stop_requested
from grpo_dist.run.directory import RunDirectory

MARGIN_SECONDS = 45.0
"""Kept before the time limit, or half of what is left, for ending everything and putting the job back in the queue."""
KILL_MARGIN_SECONDS = 8.0
"""Kept of Slurm's KillWait for ending everything in order: a process Slurm kills leaves its shared memory behind."""
ASK_SECONDS = 120.0
"""Between two questions how much time is left: a limit may be changed."""


class Deadline:
    """The time a job still has. Moments are those of `time.monotonic`.

    Each question is a task of its own, because Slurm may take long to answer.

    Args:
        signal_seconds: so long before its time limit the job is to save.
        kill_wait: asks Slurm in how many seconds it kills the job (None: it does not).
        time_left: asks Slurm how many seconds are left of the running job (None: no limit, or no answer).
    """

    def __init__(
        self,
        run: RunDirectory,
        attempt: Path,
        signal_seconds: float,
        kill_wait: Callable[[], float | None],
        time_left: Callable[[], float | None],
    ) -> None:
        self.run, self.attempt, self.signal_seconds = run, attempt, signal_seconds
        self.kill_wait, self.time_left = kill_wait, time_left
        self.kill = self.limit = math.inf
        self.ask_at = 0.0
        self.limit_seen = False
        self.kill_query: asyncio.Task[None] | None = None
        self.time_query: asyncio.Task[None] | None = None

    def watch(self, now: float) -> None:
        """Ask Slurm now and then how much time is left, and have training stop when it is `signal_seconds`.

        A job need not have asked Slurm for a signal.
        """
        if now >= self.ask_at and (self.time_query is None or self.time_query.done()):
            self.ask_at = now + ASK_SECONDS
            self.time_query = asyncio.create_task(self._ask_time_left())

    def on_signal(self) -> None:
        """SIGTERM starts either the grace time of a preemption or the end of the job; only Slurm knows which."""
        self.ask_at = 0.0
        if self.kill_query is None or self.kill_query.done():
            self.kill_query = asyncio.create_task(self._ask_kill_wait())

    def passed(self, now: float, why: Why) -> bool:
        """Whether no step can be waited for any more, in a job that is to stop for this reason."""
        if why is Why.LIMIT and not self.limit_seen:  # the limit, or a preemption: only Slurm knows which
            until = now + max(0.0, self.signal_seconds - MARGIN_SECONDS)
            self.limit_seen, self.limit, self.ask_at = True, min(self.limit, until), now
        return now > (self.kill if why is Why.ASKED else min(self.kill, self.limit))

    async def _ask_kill_wait(self) -> None:
        asked = time.monotonic()
        if (left := await asyncio.to_thread(self.kill_wait)) is not None:
            self.kill = min(self.kill, asked + max(left - KILL_MARGIN_SECONDS, left / 2))

    async def _ask_time_left(self) -> None:
        asked = time.monotonic()
        left = await asyncio.to_thread(self.time_left)
        if left is not None:
            self.limit = asked + max(left - MARGIN_SECONDS, left / 2)
        elif (start := read_start(self.attempt)) and start.ends is not None:  # as in a container
            left = start.ends - time.time()
        if left is None:
            return
        if left > self.signal_seconds:
            self.ask_at = min(self.ask_at, asked + left - self.signal_seconds)
        elif stop_requested(self.run) in (None, Why.ASKED):
            with contextlib.suppress(OSError):  # a full disk: there is no saving anyway
                request_stop(self.run, Why.LIMIT)
