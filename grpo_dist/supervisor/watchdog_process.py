"""A process that watches the agent of its node: if the agent freezes or is killed, everything on the node ends.

The coordinator notices when another node goes silent, but nothing would notice a frozen coordinator, or a frozen agent
of a job with one node. So the process that Slurm starts runs the agent in a child and only waits for its heartbeats.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from grpo_dist.procs.parent_death import become_subreaper, die_with_parent
from grpo_dist.procs.tree import descendants, end, remove_unused, shared_memory
from grpo_dist.supervisor.agent import SURVIVED_SIGNALS
from grpo_dist.supervisor.rpc import HEARTBEAT_SECONDS

SILENCE_SECONDS = 60.0
"""Longer than LOST_SECONDS: an agent that waits for a slow file server is no reason to lose a run."""
TICK_SECONDS = 1.0


def watched(supervise: Callable[[], Coroutine[Any, Any, int]], silence: float = SILENCE_SECONDS) -> int:
    """Run `supervise` in a child process; returns its exit code, 128 + n for signal n.

    Args:
        silence: seconds without a turn of its event loop after which it counts as frozen.
    """
    before, parent = shared_memory(), os.getpid()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGKILL, parent)
        os.close(readable)
        sys.exit(asyncio.run(_with_heartbeats(supervise, writable)))
    os.close(writable)
    for signum in SURVIVED_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    become_subreaper()
    if not _closes(readable, silence):
        print(f"the supervisor of this node is frozen: silent for {silence:.0f} s", file=sys.stderr, flush=True)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    while below := descendants(parent):
        end(below)
    remove_unused(shared_memory() - before)
    return code if code >= 0 else 128 - code


async def _with_heartbeats(supervise: Callable[[], Coroutine[Any, Any, int]], writable: int) -> int:
    """Await it, sending heartbeats meanwhile."""

    async def send_heartbeats() -> None:
        while True:
            os.write(writable, b".")
            await asyncio.sleep(HEARTBEAT_SECONDS)

    heartbeats = asyncio.create_task(send_heartbeats())
    try:
        return await supervise()
    finally:
        heartbeats.cancel()


def _closes(readable: int, silence: float) -> bool:
    """Whether the child closes its end before it has been silent for this many seconds."""
    silent = 0.0
    while silent < silence:  # counted in ticks: a job that Slurm suspends freezes as a whole, and may resume
        if not select.select([readable], [], [], TICK_SECONDS)[0]:
            silent += TICK_SECONDS
        elif os.read(readable, 4096):
            silent = 0.0
        else:
            return True
    return False
