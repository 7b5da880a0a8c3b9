"""Run one program, and clean up everything it started when it ends or when the parent ends.

    python -m grpo_dist.procs.reaper PARENT FD GRACE SCRATCH -- PROGRAM ARGUMENTS…

A program of several processes (vLLM's server and its engine cores) leaves some of them, and shared memory, behind when
one is killed. The reaper runs between the program and its parent. On SIGTERM, or if the parent dies, it ends the
program, with GRACE seconds to shut down; on SIGQUIT, at once. Then it removes what the program made in /dev/shm and the
directory SCRATCH. It writes the program's process id to the file descriptor FD. The exit code is that of the program,
128 + n for signal n.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from grpo_dist.procs.shared_memory import LOOK_SECONDS, SharedMemory
from grpo_dist.procs.tree import Process, become_subreaper, descendants, die_with_parent, end_all

POLL_SECONDS = 0.05
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


def run_program(parent: int, fd: int, grace: float, scratch: Path, argv: list[str]) -> int:
    """Run argv until it ends or a signal says to end it; return its exit code."""
    # Blocked, not handled: `sigtimedwait` takes them one by one below, and none is lost. First, because the next line
    # may send us SIGTERM at once.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    die_with_parent(signal.SIGTERM, parent)
    become_subreaper()
    shared = SharedMemory(_descendants)
    try:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_prepare_child)
        os.write(fd, f"{program.pid}\n".encode())
        os.close(fd)
        _wait(program, grace, shared)
        return program.returncode if program.returncode >= 0 else 128 - program.returncode
    finally:
        # In this order: a dead process no longer says what it has mapped, and memory in use must not be removed.
        shared.look()
        end_all(_descendants)
        _reap()
        shared.remove()
        shutil.rmtree(scratch, ignore_errors=True)


def _descendants() -> set[Process]:
    return descendants(os.getpid())


def _prepare_child() -> None:
    """In the child before exec: unblock the signals, and end with the reaper.

    A blocked signal stays blocked over exec: without this the program would never see SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
    die_with_parent()


def _wait(program: subprocess.Popen[bytes], grace: float, shared: SharedMemory) -> None:
    """Return when the program has ended, by itself or because a signal asked for it."""
    while program.poll() is None:
        received = signal.sigtimedwait(HANDLED_SIGNALS, LOOK_SECONDS)
        shared.look()
        _reap(program.pid)
        if received is not None and received.si_signo != signal.SIGCHLD:
            _end(program, 0.0 if received.si_signo == signal.SIGQUIT else grace)
            return


def _end(program: subprocess.Popen[bytes], grace: float) -> None:
    deadline = time.monotonic() + grace
    if grace:
        program.terminate()
    while program.poll() is None and time.monotonic() < deadline:
        received = signal.sigtimedwait(HANDLED_SIGNALS, POLL_SECONDS)
        if received is not None and received.si_signo == signal.SIGQUIT:
            break
    program.kill()
    program.wait()


def _reap(but: int | None = None) -> None:
    """Collect orphans that have ended; nothing else does. `but` is left to its Popen.

    WNOWAIT looks without collecting: if the program's end were collected here, its Popen would report exit code 0.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


if __name__ == "__main__":
    separator = sys.argv.index("--")
    parent, fd, grace, scratch = sys.argv[1:separator]
    sys.exit(run_program(int(parent), int(fd), float(grace), Path(scratch), sys.argv[separator + 1 :]))
