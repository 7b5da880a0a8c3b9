"""A node's supervisor under watch: frozen or killed, it ends, and nothing of its node stays.

The head notices the silence of another node; of a frozen head, or of the only node, nobody would hear. So the
supervisor is a child of the process that Slurm started, which does nothing but listen to its signs of life.
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
from grpo_dist.supervisor.agent import NOTED
from grpo_dist.supervisor.rpc import BEAT_SECONDS

SILENCE_SECONDS = 60.0
"""More than the head gives to other nodes: a file server that keeps a supervisor waiting is no reason to lose a run."""
TICK_SECONDS = 1.0


def guarded(supervise: Callable[[], Coroutine[Any, Any, int]], silence: float = SILENCE_SECONDS) -> int:
    """Run `supervise` in a child process; returns its exit code, 128 + n for signal n.

    Args:
        silence: seconds in which its event loop did not come round after which it counts as frozen.
    """
    before, parent = shared_memory(), os.getpid()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        die_with_parent(signal.SIGKILL, parent)
        os.close(readable)
        sys.exit(asyncio.run(_alive(supervise, writable)))
    os.close(writable)
    for signum in NOTED:
        signal.signal(signum, signal.SIG_IGN)
    become_subreaper()
    if not _ends(readable, silence):
        print(f"the supervisor of this node is frozen: silent for {silence:.0f} s", file=sys.stderr, flush=True)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    while below := descendants(parent):
        end(below)
    remove_unused(shared_memory() - before)
    return code if code >= 0 else 128 - code


async def _alive(supervise: Callable[[], Coroutine[Any, Any, int]], writable: int) -> int:
    """Await it, giving signs of life meanwhile."""

    async def beat() -> None:
        while True:
            os.write(writable, b".")
            await asyncio.sleep(BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        return await supervise()
    finally:
        beating.cancel()


def _ends(readable: int, silence: float) -> bool:
    """Whether the other end is closed before it is silent for so long."""
    silent = 0.0
    while silent < silence:  # counted in ticks: a job that Slurm suspends is frozen as a whole, and goes on
        if not select.select([readable], [], [], TICK_SECONDS)[0]:
            silent += TICK_SECONDS
        elif os.read(readable, 4096):
            silent = 0.0
        else:
            return True
    return False
