"""Hold one program and everything it starts; when it ends, or whoever asked for it does, nothing of it stays.

    python -m grpo_dist.procs.reaper PARENT FD GRACE SCRATCH -- PROGRAM ARGUMENTS…

A program of several processes (vLLM's server and its engine cores) leaves some behind when one is killed, and shared
memory with them. The leash stands between it and its parent: SIGTERM, or the death of the parent, ends the program with
GRACE seconds to do it itself; SIGQUIT ends it at once. Then its files in /dev/shm and the directory SCRATCH go too.
The program's process id is written to the file descriptor FD. The exit code is the program's, 128 + n for signal n.
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

from grpo_dist.procs.parent_death import become_subreaper, die_with_parent
from grpo_dist.procs.tree import descendants, end, remove_unused, shared_memory, shared_memory_of

LOOK_SECONDS = 5.0
"""Between two looks at the shared memory in use: a process killed from outside cannot be asked any more."""
POLL_SECONDS = 0.05
TRACKER = b"multiprocessing.resource_tracker"
"""Python's own cleaner: it unlinks what processes have named, mapped or not, when the last of them is gone."""
TRACKER_SECONDS = 3.0
"""For it to do so."""
AWAITED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)


def hold(parent: int, fd: int, grace: float, scratch: Path, argv: list[str]) -> int:
    """Run argv to its end, or until told; return its exit code."""
    # Blocked, not handled: `sigtimedwait` takes them one by one below, and none is lost. First, because the next line
    # may send us SIGTERM at once.
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    die_with_parent(signal.SIGTERM, parent)
    become_subreaper()
    foreign, used = shared_memory(), set[str]()
    try:
        program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_freed)
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


def _freed() -> None:
    """In the program, before it is one: our blocked signals are not its, our end is.

    A blocked signal stays blocked over exec: without this the program would never see SIGTERM.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    die_with_parent()


def _wait(program: subprocess.Popen[bytes], grace: float, look: Callable[[], None]) -> None:
    """Return when the program has ended, by itself or because we are told to end it."""
    while program.poll() is None:
        told = signal.sigtimedwait(AWAITED, LOOK_SECONDS)
        look()  # again and again: a process that has ended no longer tells what it used
        _reap(program.pid)
        if told is not None and told.si_signo != signal.SIGCHLD:
            _end(program, 0.0 if told.si_signo == signal.SIGQUIT else grace)
            return


def _end(program: subprocess.Popen[bytes], grace: float) -> None:
    deadline = time.monotonic() + grace
    if grace:
        program.terminate()
    while program.poll() is None and time.monotonic() < deadline:
        told = signal.sigtimedwait(AWAITED, POLL_SECONDS)
        if told is not None and told.si_signo == signal.SIGQUIT:
            break
    program.kill()
    program.wait()


def _reap(but: int | None = None) -> None:
    """Collect orphans that have ended, which nobody else will; the program itself is left to its Popen.

    WNOWAIT looks without collecting: if the program's end were collected here, its Popen would report exit code 0.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != but:
            os.waitpid(ended.si_pid, 0)


def _kill_descendants() -> None:
    """Kill until there are none: a killed one's children become ours. Trackers of resources may end by themselves."""
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
    sys.exit(hold(int(parent), int(fd), float(grace), Path(scratch), sys.argv[separator + 1 :]))
