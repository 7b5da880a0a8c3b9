"""Run one program, and clean up everything it started when it ends or when the parent ends.

    python -m grpo_dist.procs.reaper PARENT FD GRACE SCRATCH -- PROGRAM ARGUMENTS…

A program of several processes (vLLM's server and its engine cores) leaves some of them, and shared memory, behind when
one is killed. The reaper runs between the program and its parent. On SIGTERM, or if the parent dies, it ends the
program, with GRACE seconds to shut down; on SIGQUIT, at once. Then it removes the program's files in /dev/shm and the
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
from collections.abc import Callable
from pathlib import Path

from grpo_dist.procs.tree import (
    become_subreaper,
    descendants,
    die_with_parent,
    end,
    remove_unused,
    shared_memory,
    shared_memory_of,
)

RECORD_SECONDS = 5.0
"""Between two records of the shared memory in use: after a process is killed, its mappings are unknown."""
POLL_SECONDS = 0.05
TRACKER = b"multiprocessing.resource_tracker"
"""Python's resource tracker: it unlinks registered shared memory when the last process that uses it is gone."""
TRACKER_SECONDS = 3.0
"""For the tracker to finish."""
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


def run_program(parent: int, fd: int, grace: float, scratch: Path, argv: list[str]) -> int:
    """Run argv until it ends or a signal says to end it; return its exit code."""
    # Blocked, not handled: `sigtimedwait` takes them one by one below, and none is lost. First, because the next line
    # may send us SIGTERM at once.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    die_with_parent(signal.SIGTERM, parent)
    become_subreaper()
    foreign, used = shared_memory(), set[str]()
    try:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_prepare_child)
        os.write(fd, f"{program.pid}\n".encode())
        os.close(fd)
        _wait(program, grace, lambda: used.update(shared_memory_of(descendants(os.getpid()))))
        return program.returncode if program.returncode >= 0 else 128 - program.returncode
    finally:
        # In this order: a dead process no longer says what it has mapped, and memory in use must not be removed.
        used.update(shared_memory_of(descendants(os.getpid())))
        _kill_descendants()
        remove_unused(used - foreign)
        shutil.rmtree(scratch, ignore_errors=True)


def _prepare_child() -> None:
    """In the child before exec: unblock the signals, and end with the reaper.

    A blocked signal stays blocked over exec: without this the program would never see SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
    die_with_parent()


def _wait(program: subprocess.Popen[bytes], grace: float, record: Callable[[], None]) -> None:
    """Return when the program has ended, by itself or because a signal asked for it."""
    while program.poll() is None:
        received = signal.sigtimedwait(HANDLED_SIGNALS, RECORD_SECONDS)
        record()  # often: a process that has ended no longer shows what it used
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


def _kill_descendants() -> None:
    """Kill until none is left: orphans become children of the reaper. Resource trackers may end by themselves."""
    spared_until = time.monotonic() + TRACKER_SECONDS
    while left := descendants(os.getpid()):
        end({one for one in left if time.monotonic() > spared_until or not _is_tracker(one.pid)})
        time.sleep(POLL_SECONDS)
    _reap()


def _is_tracker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


if __name__ == "__main__":
    separator = sys.argv.index("--")
    parent, fd, grace, scratch = sys.argv[1:separator]
    sys.exit(run_program(int(parent), int(fd), float(grace), Path(scratch), sys.argv[separator + 1 :]))
