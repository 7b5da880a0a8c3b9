"""Run one process of a run to its end: everything it prints to a log, what it says to the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from grpo_dist.cluster.lifeline import die_with_parent
from grpo_dist.progress import ERROR_MARK, EXIT_MARK, MARK, PASSING_MARK, Terminal

MARKS = (MARK, PASSING_MARK, ERROR_MARK, EXIT_MARK)
GRACE_SECONDS = 20.0
LEFT_SECONDS = 10.0
"""Of silence, after which what a process has left behind counts as idle."""
TICK_SECONDS = 0.5


class Interrupted(Exception):
    """The person, or the system, asked the run to stop; `signum` says how."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(frozen=True)
class Outcome:
    """How a process ended: the exit code it stated, else its own, and the reason it gave (empty if none)."""

    code: int
    reason: str


class Speech:
    """Passes on what a process says to the person; keeps the reason it gives for failing."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._reason: dict[str, None] = {}  # several ranks give the same one
        self._stated = 0

    @property
    def reason(self) -> str:
        return "\n".join(self._reason)

    def code(self, code: int) -> int:
        """The exit code a process stated, where it ended with any but 0: the launchers above it make 1 of it."""
        return code and (self._stated or code)

    def hear(self, text: str) -> None:
        """One line the process printed; a reward may have begun it, and left it open."""
        if begun := re.search(f"(?<=.)(?:{'|'.join(map(re.escape, (MARK, ERROR_MARK, EXIT_MARK)))})", text):
            text = text if text.startswith(MARKS) else text[begun.start() :]
        if text.startswith(MARK):
            self.terminal.show(text.removeprefix(MARK))
        elif text.startswith(PASSING_MARK):
            self.terminal.show_passing(text.removeprefix(PASSING_MARK))
        elif text.startswith(ERROR_MARK):
            self._reason[text.removeprefix(ERROR_MARK)] = None
        elif text.startswith(EXIT_MARK):
            self._stated = max(self._stated, int(text.removeprefix(EXIT_MARK)))


class Started(Protocol):
    """A process that leads its group, and what it prints; as `subprocess.Popen` has it."""

    pid: int
    stdout: BinaryIO

    def wait(self, timeout: float | None = None) -> int: ...

    def poll(self) -> int | None: ...


def start(argv: Sequence[str], env: Mapping[str, str]) -> Started:
    """Start argv in its own process group."""
    return subprocess.Popen(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    terminal: Terminal,
    start: Callable[[Sequence[str], Mapping[str, str]], Started] = start,
) -> Outcome:
    """Start argv in its own process group and wait until the whole group has ended.

    SIGINT and SIGTERM to us end the group (SIGKILL after GRACE_SECONDS) and raise Interrupted.
    """
    process = start(argv, env)
    speech = Speech(terminal)
    try:
        with signals_raise(), open(log, "ab", buffering=0) as record:
            for line in _lines(process):
                record.write(line)
                speech.hear(line.decode(errors="replace").rstrip("\n"))
            return Outcome(speech.code(process.wait()), speech.reason)
    finally:
        end_group(process)
        terminal.finish()


def _lines(process: Started) -> Iterator[bytes]:
    """Its lines, until all who hold its output have ended, or the process has and the others keep silent."""
    rest, silent = b"", 0.0
    while silent < LEFT_SECONDS:
        if select.select([process.stdout], [], [], TICK_SECONDS)[0]:
            data, silent = os.read(process.stdout.fileno(), 1 << 16), 0.0
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (line + b"\n" for line in lines)
        elif process.poll() is not None:
            silent += TICK_SECONDS
    if rest:
        yield rest


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise Interrupted."""

    def stop(signum: int, _frame: object) -> None:
        raise Interrupted(signum)

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def end_group(process: Started) -> None:
    """Nothing of the group stays: a launcher may end and leave a rank behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
