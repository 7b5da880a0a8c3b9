"""Watches every reward call in training: records what runs, ends a call that hangs, and cleans up what is left behind.

A function may end the process (`os._exit`, a crash), hang in code that lets no other thread run (a regular expression),
or leave processes and threads behind. Each case is reported with its function and step: here, or by the parent of this
process, from the record.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpo_dist.procs.tree import Process, descendants, end
from grpo_dist.progress import say
from grpo_dist.rewards import symbolic
from grpo_dist.rewards.guard import Batch
from grpo_dist.run.control import RewardNote
from grpo_dist.run.directory import ATTEMPT_VARIABLE

HELPERS = (b"multiprocessing.resource_tracker", os.fsencode(Path(symbolic.__file__).parent))
"""They end by themselves: Python's, after cleaning up, and the scripts of `Judge`, with this process."""


class RewardWatch:
    """For the `watch` of a `LoadedReward`.

    Args:
        limit_s: seconds after which a call counts as hanging: the stacks are written to the log and the process exits.
    """

    def __init__(self, rank: int, limit_s: float) -> None:
        attempt = os.environ.get(ATTEMPT_VARIABLE)
        self.note = RewardNote(Path(attempt), rank) if attempt else None
        self.limit_s = limit_s
        self.inside = 0
        self.left: set[Process] = set()
        self.told: set[str] = set()

    @contextmanager
    def __call__(self, name: str, batch: Batch) -> Iterator[None]:
        what = f"reward '{name}' at step {batch.step}"
        children, threads, streams = _children(), _threads(), (sys.stdout, sys.stderr)
        self._enter(what)
        try:
            yield
        finally:
            self._leave()
            sys.stdout, sys.stderr = streams  # the run reports there
            self._look(name, what, _children() - children, _threads() - threads)

    def end_leftovers(self) -> None:
        """End the processes that functions have left behind, and their descendants."""
        below = descendants(os.getpid())
        for process in self.left & below:
            end({process, *descendants(process.pid)})

    def _enter(self, what: str) -> None:
        self.inside += 1
        if self.note:
            self.note.enter(what)
        faulthandler.dump_traceback_later(self.limit_s, exit=True)

    def _leave(self) -> None:
        self.inside -= 1
        if self.note:
            self.note.leave()
        if not self.inside:
            faulthandler.cancel_dump_traceback_later()

    def _look(self, name: str, what: str, children: set[int], threads: set[threading.Thread]) -> None:
        kept = {process for process in descendants(os.getpid()) if process.pid in children} if children else set()
        kept = {process for process in kept if not any(one in _command(process.pid) for one in HELPERS)}
        self.left |= kept
        if name in self.told or not (kept or threads):
            return
        self.told.add(name)
        found = [f"process {one.pid} ({_command(one.pid).decode(errors='replace')[:60]})" for one in kept]
        found += [f"thread '{thread.name}'" for thread in threads]
        say(f"warning: {what} has left {', '.join(found)} running; it ends with training")


def _children() -> set[int]:
    """Children of this process; () if the kernel does not list them."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found.update(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
        except OSError:
            continue
    return found


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
    except OSError:
        return b""
