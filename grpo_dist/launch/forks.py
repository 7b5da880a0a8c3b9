"""The client of `training/common/forks.py`: stages of one run are forked from a process that did the imports.

Importing the training stack takes about ten seconds of processor time, and a run has three to five stages. Only runs on
CPU fork: the state of a GPU driver does not survive a fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from grpo_dist.config import RunConfig
from grpo_dist.launch.process import ended_by
from grpo_dist.plan import LaunchPlan
from grpo_dist.procs.tree import die_with_parent

LAUNCHER = "accelerate.commands.launch"
END_SECONDS = 5.0


def can_fork(plan: LaunchPlan, config: RunConfig) -> bool:
    """Whether all stages import the same packages, and these survive a fork."""
    return (
        plan.topology.on_cpu
        and not config.model.requires_unsloth  # has to be imported before the packages it patches
        and "wandb" not in config.tracking  # creates a directory on import, which the first stage to end removes
        and not has_engine_in_training(plan, config)
    )


def has_engine_in_training(plan: LaunchPlan, config: RunConfig) -> bool:
    """Whether TRL needs vLLM in the training processes. (TRL would import an installed vLLM in any case.)"""
    return plan.topology.colocated or not config.rollout.syncs_adapter


class Forks:
    """The fork server. It and its stages end with the `with` block, and with this process."""

    def __init__(self, run: Path, env: Mapping[str, str]) -> None:
        self.run, self.env = run, env

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "grpo_dist.training.common.forks", str(theirs.fileno()), str(self.run)],
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,  # read only if the server ends: each stage reports failed imports itself
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> Forked:
        """Fork a process that runs `argv` (`python -m MODULE ARGUMENT …`); one at a time."""
        reading, writing = os.pipe()
        request = json.dumps({"argv": list(argv), "env": dict(env)}).encode() + b"\n"
        try:
            socket.send_fds(self._socket, [request], [writing])
        finally:
            os.close(writing)
        return Forked(self._socket, open(reading, "rb"), self._process, self._errors)


class Forked:
    """The parts of `subprocess.Popen` that `run_process` needs, for a process that the fork server started."""

    def __init__(
        self, connection: socket.socket, stdout: BinaryIO, server: subprocess.Popen[bytes], errors: BinaryIO
    ) -> None:
        self._connection, self.stdout, self._server, self._errors = connection, stdout, server, errors
        self._unread, self._reported, self._server_ended = b"", {}, False

    @property
    def pid(self) -> int:
        """Its process id, or that of the fork server as long as it is not forked."""
        with suppress(subprocess.TimeoutExpired):
            self._wait_for("pid", 0)
        return self._reported.get("pid", self._server.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for the signal that ended it; that of the fork server if this ended first.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        self._wait_for("code", timeout)
        if "code" not in self._reported:
            self._reported["code"] = self._server.wait() or -signal.SIGKILL
            self._server_ended = True
        return self._reported["code"]

    def last_words(self) -> tuple[str, str]:
        """(why it never ran, what the fork server wrote); both empty unless the server ended before the fork began."""
        if not self._server_ended or "pid" in self._reported:
            return "", ""
        self._errors.seek(0)
        return f"the process that imports the training stack {ended_by(self.wait())}", self._errors.read().decode(
            errors="replace"
        )

    def poll(self) -> int | None:
        """Its exit code, as `wait`; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def _wait_for(self, what: str, timeout: float | None) -> None:
        """Wait until this is known, or the fork server has ended, which ends its forks too."""
        self._connection.settimeout(timeout)
        try:
            while what not in self._reported and (more := self._receive()):
                *lines, self._unread = (self._unread + more).split(b"\n")
                for line in lines:
                    self._reported |= json.loads(line)
        except (TimeoutError, BlockingIOError) as error:
            raise subprocess.TimeoutExpired("a fork", timeout or 0) from error

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(4096)
        except ConnectionResetError:
            return b""
