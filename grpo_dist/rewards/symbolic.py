"""Whether two expressions are equal as mathematics, decided by math-verify in a process that can be killed.

math-verify's own time-out works in the main thread only and cannot interrupt a long operation of C
code, such as one huge power. Here the process is killed and started anew.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from grpo_dist.errors import RewardError

TIMEOUT_S = 2.0
START_TIMEOUT_S = 120.0
MAX_CHARS = 2000  # two of them, as escaped JSON, fit into the pipe: writing a request cannot block

_WORKER = Path(__file__).with_name("symbolic_worker.py")


def symbolically_equal(guess: str, truth: str, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether math-verify finds both equal within `timeout_s` seconds.

    Not equal: what takes longer, crashes the worker, or is longer than `MAX_CHARS`. Safe from any thread
    and after a fork; calls of one process take turns. RewardError when math-verify is not installed.
    """
    if max(len(guess), len(truth)) > MAX_CHARS:
        return False
    return _judge.equal(guess, truth, timeout_s)


class _Worker:
    """One running `symbolic_worker.py`."""

    def __init__(self) -> None:
        # -P: a `json.py` beside the script or in the current directory must not be imported.
        # Replies have a pipe of their own: anything may print to stdout, even before the script starts.
        # Its own process group: Ctrl-C is for this process to handle.
        self.replies, replies = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER), str(replies)],
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
        self.process.stdin.write(json.dumps(request).encode("ascii") + b"\n")

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next reply; None when it does not come in time or the worker has ended."""
        line = _read_line(self.replies, time.monotonic() + timeout_s)
        return json.loads(line) if line else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def abandon(self) -> None:
        """Forget a worker that belongs to the process this one was forked from."""
        self.process.returncode = 0  # keeps Popen from waiting for a child that is not ours
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


class _Judge:
    """The one worker of this process, started when first needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: _Worker | None = None

    def equal(self, guess: str, truth: str, timeout_s: float) -> bool:
        with self.lock:
            reply = None
            try:
                worker = self._ready_worker()
                worker.send({"guess": guess, "truth": truth, "timeout_s": timeout_s})
                reply = worker.receive(timeout_s)
            except BrokenPipeError:
                pass
            finally:  # also on KeyboardInterrupt: a reply left in the pipe would answer the next request
                if reply is None:
                    self._stop()
        return reply is not None and reply["equal"]

    def _ready_worker(self) -> _Worker:
        if self.worker is None or self.worker.process.poll() is not None:
            self._stop()
            self.worker = _Worker()
            _check_started(self.worker.receive(START_TIMEOUT_S))
        return self.worker

    def _stop(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None

    def stop(self) -> None:
        with self.lock:
            self._stop()

    def after_fork(self) -> None:
        """In the child: the lock may be held by a thread that does not exist here, the worker is the parent's."""
        self.lock = threading.Lock()
        if self.worker is not None:
            self.worker.abandon()
            self.worker = None


def _check_started(reply: dict[str, Any] | None) -> None:
    if reply is None:
        raise RewardError(
            f"the process that runs math-verify ended or hung while starting ({sys.executable})",
            hint=f"see why: {sys.executable} -P {_WORKER} 1 < /dev/null",
        )
    if "missing" in reply:
        raise RewardError(
            f"comparing these answers needs math-verify, which cannot be imported: {reply['missing']}",
            hint="pip install 'grpo-dist[train]'",
        )


_judge = _Judge()
os.register_at_fork(after_in_child=_judge.after_fork)
atexit.register(_judge.stop)
