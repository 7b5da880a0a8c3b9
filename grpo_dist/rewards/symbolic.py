"""Whether two expressions are equal as mathematics, decided by math-verify in a process that can be killed.

math-verify's own time-out works in the main thread only and cannot interrupt a long operation of C code, such as one
huge power. Here each comparison runs in its own process, forked from one that has math-verify loaded; the kernel kills
it when its processor time is used up. So the result does not depend on how busy the machine is.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grpo_dist.errors import RewardError

TIMEOUT_S = 2.0
"""Processor time of one comparison."""
BATCH_S = 20.0
"""Processor time of all comparisons of a batch (`budget`)."""
PATIENCE = 60.0
"""A comparison may take this many times its processor time before its worker counts as stuck."""
START_TIMEOUT_S = 120.0
MAX_CHARS = 2000  # two of them, as escaped JSON, fit into the pipe: writing a request cannot block


def symbolically_equal(guess: str, truth: str, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether math-verify finds both equal within `timeout_s` seconds of processor time.

    Texts count as unequal if the comparison takes longer or crashes the worker, if they are longer than `MAX_CHARS`, or
    if the `budget` is used up. Safe from any thread and after a fork; calls of one process take turns. RewardError when
    math-verify is not installed.
    """
    return verdict(guess, truth, timeout_s=timeout_s) is True


def verdict(guess: str, truth: str, *, timeout_s: float = TIMEOUT_S) -> bool | None:
    """As `symbolically_equal`; None if there is no result: the budget is used up, or the worker ended early."""
    if max(len(guess), len(truth)) > MAX_CHARS:
        return False
    left_s = getattr(_budget, "left_s", None)
    if left_s is not None and left_s <= 0:
        return None
    equal = _judge.equal(guess, truth, timeout_s)
    if left_s is not None:
        _budget.left_s = left_s - _judge.spent_s
    return equal


_budget = threading.local()


@contextmanager
def budget(seconds: float = BATCH_S) -> Iterator[None]:
    """Limit the processor time of all comparisons by this thread within the context; later ones count as unequal."""
    before = getattr(_budget, "left_s", None)
    _budget.left_s = seconds
    try:
        yield
    finally:
        _budget.left_s = before


class _Worker:
    """One running worker script."""

    def __init__(self, script: Path) -> None:
        # -P: a `json.py` beside the script or in the current directory must not be imported.
        # Replies have their own pipe: anything may print to stdout, even before the script starts.
        # Its own process group: Ctrl-C is for this process to handle.
        self.replies, replies = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(replies)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=(replies,),
                process_group=0,
            )
        except BaseException:
            os.close(self.replies)
            raise
        finally:
            os.close(replies)

    def send(self, request: dict[str, Any]) -> None:
        rest = memoryview(json.dumps(request).encode("ascii") + b"\n")
        while rest:
            rest = rest[self.process.stdin.write(rest) :]

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next reply; None if it does not come in time or the worker has ended."""
        line = _read_line(self.replies, time.monotonic() + timeout_s)
        return json.loads(line) if line else None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the comparison it is working on
        self.process.wait()
        self.close()

    def abandon(self) -> None:
        """Forget a worker that belongs to the process this one was forked from."""
        self.process.returncode = 0  # keeps Popen from waiting for another process's child
        self.close()

    def close(self) -> None:
        self.process.stdin.close()
        os.close(self.replies)


def _read_line(descriptor: int, deadline: float) -> bytes | None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return None
        line += chunk
    return line


class Judge:
    """A script that answers one JSON line with another, run by a process that is started when first needed.

    Args:
        package: what the script needs, and `install` what to type if it cannot be imported.
    """

    def __init__(self, script: Path, package: str, install: str) -> None:
        self.script, self.package, self.install = script, package, install
        self.lock = threading.Lock()
        self.worker: _Worker | None = None
        os.register_at_fork(after_in_child=self.after_fork)
        atexit.register(self.stop)

    def ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any] | None:
        """The reply; None if the worker ended without one, or took longer than `patience_s` seconds.

        Raises:
            RewardError: the package is not installed, or the script does not start.
        """
        with self.lock:
            reply = None
            try:
                worker = self._ready_worker()
                worker.send(request)
                reply = worker.receive(patience_s)
            except BrokenPipeError:
                pass
            finally:  # also on KeyboardInterrupt: a reply left in the pipe would answer the next request
                if reply is None:
                    self._stop()
        return reply

    def _ready_worker(self) -> _Worker:
        if self.worker is None or self.worker.process.poll() is not None:
            self._stop()
            self.worker = _Worker(self.script)
            self._check_started(self.worker.receive(START_TIMEOUT_S))
        return self.worker

    def _stop(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None

    def stop(self) -> None:
        with self.lock:
            self._stop()

    def _check_started(self, reply: dict[str, Any] | None) -> None:
        if reply is None:
            raise RewardError(
                f"the process that runs {self.package} ended or hung while starting ({sys.executable})",
                hint=f"see why: {sys.executable} -P {self.script} 1 < /dev/null",
            )
        if "missing" in reply:
            raise RewardError(
                f"judging these answers needs {self.package}, which cannot be imported: {reply['missing']}",
                hint=self.install,
            )

    def after_fork(self) -> None:
        """In the child: the lock may be held by a thread that does not exist here, the worker belongs to the parent."""
        self.lock = threading.Lock()
        if self.worker is not None:
            self.worker.abandon()
            self.worker = None


class _Judge(Judge):
    def __init__(self) -> None:
        super().__init__(
            Path(__file__).with_name("symbolic_worker.py"), "math-verify", "pip install 'grpo-dist[train]'"
        )
        self.spent_s = 0.0
        """Processor time of the last comparison."""

    def equal(self, guess: str, truth: str, timeout_s: float) -> bool | None:
        """The verdict; None if the worker ended without one."""
        request = {"guess": guess, "truth": truth, "timeout_s": timeout_s}
        reply = self.ask(request, PATIENCE * (1 + timeout_s))
        self.spent_s = timeout_s if reply is None else reply["spent_s"]
        return None if reply is None else reply["equal"]


_judge = _Judge()
