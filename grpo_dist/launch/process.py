"""Run one process of a run to its end: everything it prints to a log, what it says to the terminal.

The rollout servers of a run, for as long as they are needed: `grpo-dist serve` as a process of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from grpo_dist.errors import RolloutError
from grpo_dist.procs.parent_death import die_with_parent
from grpo_dist.progress import ERROR_MARK, EXIT_MARK, MARK, PASSING_MARK, Terminal
from grpo_dist.run.directory import RunDirectory

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
class ProcessOutcome:
    """How a process ended: the exit code it stated, else its own, and the reason it gave (empty if none)."""

    code: int
    reason: str


class ProgressRelay:
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
) -> ProcessOutcome:
    """Start argv in its own process group and wait until the whole group has ended.

    SIGINT and SIGTERM to us end the group (SIGKILL after GRACE_SECONDS) and raise Interrupted.
    """
    process = start(argv, env)
    speech = ProgressRelay(terminal)
    try:
        with signals_raise(), open(log, "ab", buffering=0) as record:
            for line in _lines(process):
                record.write(line)
                speech.hear(line.decode(errors="replace").rstrip("\n"))
            return ProcessOutcome(speech.code(process.wait()), speech.reason)
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


@contextmanager
def serving(run: RunDirectory, *, env: Mapping[str, str], logs: Path, terminal: Terminal) -> Iterator[None]:
    """Within, all servers of this machine are ready; after it, none is left.

    Raises:
        RolloutError: they cannot be started; its words are those of `grpo-dist serve`.
        Interrupted: a signal came while they started.
    """
    process = subprocess.Popen(
        (sys.executable, "-m", "grpo_dist", "serve", str(run.path)),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    said: list[str] = []
    ending = threading.Event()
    arguments = (process, said, logs / "serve.log", terminal, ending)
    listener = threading.Thread(target=_listen, args=arguments, daemon=True)
    listener.start()
    try:
        with signals_raise():
            ready = process.stdout.readline()
        if not ready:
            listener.join()
            raise RolloutError("\n".join(said).removeprefix("Error: ") or f"the rollout servers ended; log: {logs}")
        yield
    finally:
        ending.set()
        end_group(process)
        terminal.finish()


def _listen(
    process: subprocess.Popen[str], said: list[str], log: Path, terminal: Terminal, ending: threading.Event
) -> None:
    """Keep what the servers' keeper says, and show it until we end it ourselves."""
    with open(log, "a", encoding="utf-8", buffering=1) as record:
        for line in process.stderr:
            record.write(line)
            text = line.rstrip("\n")
            if text.startswith("Error: ") or said:
                said.append(text)
            elif not ending.is_set():
                terminal.show(text)
