"""A process must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends (prctl(2)), however the parent ends.

    The request is not inherited: each process of a chain makes its own.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def shelter_from_sigterm() -> None:
    """Keep SIGTERM away from this process and, over exec, from what it starts.

    Both ways: torchrun's agent sets a handler, which a block keeps silent; Python's resource tracker lifts blocks.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def outlive_sigterm() -> None:
    """In a process that was started sheltered, do nothing on SIGTERM.

    What it starts is sheltered no longer, so that it can end that by SIGTERM itself.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, lambda _signum, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
