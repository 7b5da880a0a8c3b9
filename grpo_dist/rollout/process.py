"""One incarnation of a replica as a process: held on a leash, its words in a log."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 10.0
"""For a server to end by itself."""
LEASH_SECONDS = 10.0
"""For the leash to clean up after it."""
LONGEST_PARENT = 40
"""Characters of a directory for scratch ones; a socket's whole path has at most 107."""


def make_scratch() -> Path:
    """A private directory for sockets, temporary files and pushed adapters."""
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="grpo-dist-", dir=parent if len(parent) <= LONGEST_PARENT else "/tmp"))


class ReplicaProcess:
    """A started server. The thread that makes this must live as long as the server is wanted (`cluster/leash.py`).

    Args:
        argv: the server's command.
        log: what it prints is added here.
        scratch: removed when it has ended.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: Path, scratch: Path) -> None:
        self.scratch, self._log = scratch, log
        readable, writable = os.pipe()
        leash = (sys.executable, "-m", "grpo_dist.cluster.leash", str(os.getpid()), str(writable))
        with open(log, "ab") as record, open(readable, encoding="ascii") as pid:
            self._from = record.tell()
            try:
                self._leash = subprocess.Popen(
                    [*leash, str(GRACE_SECONDS), str(scratch), "--", *argv],
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=record,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(writable,),
                )
            finally:
                os.close(writable)
            self.pid = int(pid.readline() or 0)

    @property
    def ended(self) -> int | None:
        """Its exit code, 128 + n for signal n; None while it runs."""
        return self._leash.poll()

    def printed(self) -> str:
        """What this incarnation wrote to the log."""
        with open(self._log, encoding="utf-8", errors="replace") as record:
            record.seek(self._from)
            return record.read()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._tell(signal.SIGTERM)

    def wait(self) -> None:
        """Return when it has ended, by itself or at the end of its grace, and nothing of it is left."""
        try:
            self._leash.wait(GRACE_SECONDS + LEASH_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it now, even when it is frozen; return when nothing of it is left."""
        self._tell(signal.SIGCONT)
        self._tell(signal.SIGQUIT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leash.wait(LEASH_SECONDS)
        self._leash.kill()
        if self._leash.wait() < 0:  # the leash was itself killed, and could not do its part
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _tell(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._leash.send_signal(signum)
