"""A process must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(signum: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask Linux for this signal when our parent ends (prctl(2)), however it ends.

    The request is not inherited: each process of a chain makes its own. The parent is the *thread* that started us: it
    must live as long as we are wanted.

    Args:
        parent: its process id where it told us; closes the moment before this call, in which it may have ended.
    """
    parent = os.getppid() if parent is None else parent
    # The order matters: a parent that ends before prctl sends nothing, so we look for it afterwards.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it ended before we asked; another process is our parent by now
        os.kill(os.getpid(), signum)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends, so that none is lost from sight."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def ignore_sigterm_until_exec() -> None:
    """Keep SIGTERM away from this process and, over exec, from what it starts.

    Both ways: torchrun's agent sets a handler, which a block keeps silent; Python's resource tracker lifts blocks.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def survive_sigterm() -> None:
    """In a process that was started sheltered, do nothing on SIGTERM.

    What it starts is sheltered no longer, so that it can end that by SIGTERM itself: exec resets a handler to the
    default, but keeps SIG_IGN. The handler comes before the unblocking, which may deliver a SIGTERM that waited.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda _signum, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
