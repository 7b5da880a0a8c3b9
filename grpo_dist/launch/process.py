"""Child processes of a run: one stage until it ends, and the rollout servers (`grpo-dist serve`) while needed.

All output goes to a log; progress messages (see `progress.py`) also go to the terminal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from grpo_dist.errors import RolloutError
from grpo_dist.procs.tree import die_with_parent
from grpo_dist.progress import CONTROL_VARIABLE, ERROR_MARK, EXIT_MARK, MARK, PASSING_MARK, Control, Terminal
from grpo_dist.run.directory import RunDirectory

GRACE_SECONDS = 20.0
IDLE_SECONDS = 10.0
"""For the last output, once a process has ended; descendants that it left behind may hold the output open forever."""
TICK_SECONDS = 0.5


class Interrupted(Exception):
    """The user or the system stopped the run with signal `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(frozen=True)
class ProcessOutcome:
    """How a process ended: the exit code it announced, else its own, and the reason it gave (empty if none)."""

    code: int
    reason: str


class ProgressRelay:
    """Shows the progress messages of a process on the terminal; keeps the reason it gives for failing."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal, self.control = terminal, Control()
        self.environment = {CONTROL_VARIABLE: self.control.name}
        """For the process, and through it for all that it starts."""
        self._reasons: dict[str, None] = {}  # several ranks may give the same one
        self._exit_code = 0

    @property
    def reason(self) -> str:
        return "\n".join(self._reasons)

    def code(self, code: int) -> int:
        """The exit code that a failed process announced, else `code`: launchers turn every failure into exit code 1."""
        return code and (self._exit_code or code)

    def read(self) -> None:
        """Handle what has arrived."""
        for mark, line in self.control.messages():
            self._handle(mark, line)

    def _handle(self, mark: str, line: str) -> None:
        if mark == MARK:
            self.terminal.show(line)
        elif mark == PASSING_MARK:
            self.terminal.show_passing(line)
        elif mark == ERROR_MARK:
            self._reasons[line] = None
        elif mark == EXIT_MARK:
            self._exit_code = max(self._exit_code, int(line))


class Started(Protocol):
    """A running process that leads its process group; `subprocess.Popen` is one."""

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
    watch: Callable[[Started], None] = lambda _process: None,
) -> ProcessOutcome:
    """Start argv in its own process group and wait until the whole group has ended.

    Args:
        watch: called every half second or oftener while the process runs; what it raises ends the group.

    SIGINT and SIGTERM to this process end the group (with SIGKILL after GRACE_SECONDS) and raise Interrupted.
    """
    relay = ProgressRelay(terminal)
    process = start(argv, {**env, **relay.environment})
    try:
        with signals_raise(), open(log, "ab", buffering=0) as record:
            for line in _lines(process, relay, watch):
                record.write(line)
            code = process.wait()
            why, words = process.last_words() if hasattr(process, "last_words") else ("", "")
            if why:
                record.write(f"{words.rstrip()}\n{why}\n".encode())
        relay.read()
        return ProcessOutcome(relay.code(code), relay.reason or _reason(why, words))
    finally:
        end_group(process)
        relay.control.close()
        terminal.finish()


def ended_by(code: int) -> str:
    """`ended with exit code 3`, `was ended by SIGSEGV`."""
    if code >= 0:
        return f"ended with exit code {code}"
    known = -code in set(signal.Signals)
    return f"was ended by {signal.Signals(-code).name if known else f'signal {-code}'}"


def _reason(why: str, words: str) -> str:
    last = words.strip().splitlines()[-1:] if why else []
    return ": ".join([why, *last])


def _lines(process: Started, relay: ProgressRelay, watch: Callable[[Started], None]) -> Iterator[bytes]:
    """Its lines, until every process that holds the output has ended, or this one has some time ago."""
    rest, since, ended = b"", 0.0, 0.0
    while since < IDLE_SECONDS:
        ready, _, _ = select.select([process.stdout, relay.control], [], [], TICK_SECONDS)
        if relay.control in ready:
            relay.read()
        if process.stdout in ready:
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if process.poll() is None:
            watch(process)
        else:  # whether or not anything is printed: a program that a reward left behind may print forever
            ended = ended or time.monotonic()
            since = time.monotonic() - ended
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
    """End all processes of the group: a launcher may end and leave a rank behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def serving(run: RunDirectory, *, env: Mapping[str, str], logs: Path, terminal: Terminal) -> Iterator[None]:
    """Run the rollout servers of this machine: all are ready inside the block, none is left after it.

    Raises:
        RolloutError: they cannot be started; the message is that of `grpo-dist serve`.
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
    error_lines: list[str] = []
    ending = threading.Event()
    arguments = (process, error_lines, logs / "serve.log", terminal, ending)
    listener = threading.Thread(target=_listen, args=arguments, daemon=True)
    listener.start()
    try:
        with signals_raise():
            ready = process.stdout.readline()
        if not ready:
            listener.join()
            raise RolloutError(
                "\n".join(error_lines).removeprefix("Error: ") or f"the rollout servers ended; log: {logs}"
            )
        yield
    finally:
        ending.set()
        end_group(process)
        terminal.finish()


def _listen(
    process: subprocess.Popen[str], error_lines: list[str], log: Path, terminal: Terminal, ending: threading.Event
) -> None:
    """Copy the messages of `grpo-dist serve` to the log and the terminal; keep its error in `error_lines`."""
    with open(log, "a", encoding="utf-8", buffering=1) as record:
        for line in process.stderr:
            record.write(line)
            text = line.rstrip("\n")
            if text.startswith("Error: ") or error_lines:
                error_lines.append(text)
            elif not ending.is_set():
                terminal.show(text)
