"""The asking side of `training.common.forks`: stages of one run whose processes share their imports.

Importing the training stack takes about ten seconds of processor time, and a run has three to five stages. Forks are
for CPUs alone: what a GPU's driver sets up does not survive one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from grpo_dist.config import RunConfig
from grpo_dist.plan import LaunchPlan
from grpo_dist.procs.parent_death import die_with_parent

LAUNCHER = "accelerate.commands.launch"
END_SECONDS = 5.0


def can_fork(plan: LaunchPlan, config: RunConfig) -> bool:
    """Whether what a stage imports is the same for all of them, and survives a fork."""
    return (
        plan.topology.device == "cpu"
        and config.model.backend != "unsloth"  # has to be imported before what it rewrites
        and "wandb" not in config.tracking  # makes a directory when imported, which the first stage to end removes
        and not has_engine_in_training(plan, config)
    )


def has_engine_in_training(plan: LaunchPlan, config: RunConfig) -> bool:
    """Whether TRL needs vLLM in the training processes; where it is installed, TRL would import it in any case."""
    return plan.topology.mode == "colocate" or config.rollout.sync == "merged"


class Forks:
    """The process that imports and forks; it and its stages end with the block, and with this process."""

    def __init__(self, run: Path, env: Mapping[str, str]) -> None:
        self.run, self.env = run, env

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "grpo_dist.training.common.forks", str(theirs.fileno()), str(self.run)],
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what cannot be imported, each stage says for itself
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

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> Forked:
        """The process that `argv` (`python -m MODULE ARGUMENT …`) would be; one at a time."""
        reading, writing = os.pipe()
        request = json.dumps({"argv": list(argv), "env": dict(env)}).encode() + b"\n"
        try:
            socket.send_fds(self._socket, [request], [writing])
        finally:
            os.close(writing)
        return Forked(self._socket, open(reading, "rb"), self._process.pid)


class Forked:
    """What `subprocess.Popen` is for a process that somebody else started, as far as `run_process` needs it."""

    def __init__(self, told: socket.socket, stdout: BinaryIO, forker: int) -> None:
        self._told, self.stdout, self._forker = told, stdout, forker
        self._unread, self._known = b"", {}

    @property
    def pid(self) -> int:
        """Its own, or while it is not forked that of the process that would do so."""
        with suppress(subprocess.TimeoutExpired):
            self._wait_for("pid", 0)
        return self._known.get("pid", self._forker)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        self._wait_for("code", timeout)
        return self._known.setdefault("code", -signal.SIGKILL)

    def poll(self) -> int | None:
        """Its exit code, as `wait`; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def _wait_for(self, what: str, timeout: float | None) -> None:
        """Until this is known, or the forking process has ended, and with it whom it had forked."""
        self._told.settimeout(timeout)
        try:
            while what not in self._known and (more := self._receive()):
                *lines, self._unread = (self._unread + more).split(b"\n")
                for line in lines:
                    self._known |= json.loads(line)
        except (TimeoutError, BlockingIOError) as error:
            raise subprocess.TimeoutExpired("a fork", timeout or 0) from error

    def _receive(self) -> bytes:
        try:
            return self._told.recv(4096)
        except ConnectionResetError:
            return b""
