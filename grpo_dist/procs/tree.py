"""The tree of processes: ending with the parent, finding descendants by ancestry, ending them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(signum: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when its parent ends, however it ends (prctl(2)).

    The request is not inherited: each process of a chain makes its own. The parent is the *thread* that started this
    process, and must live as long as the process is needed.

    Args:
        parent: the parent's process id, if known; detects a parent that ended before this call.
    """
    parent = os.getppid() if parent is None else parent
    # The order matters: a parent that ends before prctl sends nothing, so we look for it afterwards.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # the parent ended before the call
        os.kill(os.getpid(), signum)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends, so that it can still be found and ended."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def ignore_sigterm_until_exec() -> None:
    """Shield this process and, across exec, what it starts from SIGTERM.

    The signal is both ignored and blocked: torchrun's agent installs a handler, so that ignoring is not enough, and
    Python's resource tracker unblocks signals, so that blocking is not enough.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def survive_sigterm() -> None:
    """In a process that was started shielded, do nothing on SIGTERM.

    Its own children are no longer shielded, so that it can end them with SIGTERM: exec resets a handler to the
    default, but keeps SIG_IGN. The handler comes before the unblocking, which may deliver a SIGTERM that waited.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda _signum, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


END_SECONDS = 5.0
POLL_SECONDS = 0.02
TRACKER = b"multiprocessing.resource_tracker"
"""Python's resource tracker: it unlinks registered shared memory when the last process that uses it is gone."""
TRACKER_SECONDS = 3.0
"""For the tracker to finish."""


@dataclass(frozen=True)
class Process:
    """A process, identified so that a later one with the same process id is never confused with it."""

    pid: int
    started: str
    """Clock ticks after boot, from /proc/PID/stat."""


def descendants(root: int, *, but: Iterable[int] = ()) -> set[Process]:
    """Living processes below `root`, without the processes `but` and their descendants."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _stat(int(entry))) is not None:
            parent, process = found
            children.setdefault(parent, []).append(process)
    left_out, reached, waiting = set(but), set(), [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in left_out:
                reached.add(child)
                waiting.append(child.pid)
    return reached


def end(processes: Iterable[Process]) -> None:
    """SIGKILL each and wait until it is gone."""
    left, until = set(processes), time.monotonic() + END_SECONDS
    for process in left:
        _signal(process, signal.SIGKILL)
    while left and time.monotonic() < until:
        left = {process for process in left if _is_alive(process)}
        time.sleep(POLL_SECONDS)


def end_all(processes: Callable[[], set[Process]]) -> None:
    """Kill until none is left: a dying process may just have started another one. Resource trackers may end first."""
    spared_until = time.monotonic() + TRACKER_SECONDS
    while left := processes():
        end({one for one in left if time.monotonic() > spared_until or not _is_tracker(one.pid)})
        time.sleep(POLL_SECONDS)


def dump_stacks(processes: Iterable[Process]) -> None:
    """Send SIGUSR2 to the processes with a handler for it; training processes write the stacks of all threads."""
    for process in processes:
        if _handles(process.pid, signal.SIGUSR2):
            _signal(process, signal.SIGUSR2)


def _stat(pid: int) -> tuple[int, Process] | None:
    """(parent's process id, process) of a living process; None if it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), Process(pid, fields[19]))


def _is_alive(process: Process) -> bool:
    found = _stat(process.pid)
    return found is not None and found[1] == process


def _signal(process: Process, signum: int) -> None:
    if _is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signum)


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _handles(pid: int, signum: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signum - 1) & 1)
