"""Making a process end with its parent, and shielding a process from SIGTERM."""

from __future__ import annotations

import ctypes
import os
import signal

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
