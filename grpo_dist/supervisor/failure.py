"""Why an attempt failed: the task, its node, its message, and the likely cause."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from grpo_dist.run.control import FAILED, MEMORY_CAUSE, OUT_OF_MEMORY, REFUSED, TRY_AGAIN

SHOWN_LINES = 15

CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"[Tt]raining (has )?diverged|probability tensor contains either",
        "training diverged",
        "begin another run with a lower grpo.learning_rate or grpo.max_grad_norm; continuing this one repeats it",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory",
        "a GPU is out of memory",
        "lower distributed.max_per_device_train_batch_size or grpo.max_completion_length",
    ),
    (r"No space left on device|Errno 28|Disk quota exceeded", "the disk is full", "make room, then submit again"),
    (
        OUT_OF_MEMORY,
        MEMORY_CAUSE,
        "ask for more: --set 'cluster.sbatch=[--mem=0]' is all of a node's memory",
    ),
    (
        r"outgoing traffic|offline mode|LocalEntryNotFoundError|Cannot reach https?://|Max retries exceeded with url",
        "something would have to be downloaded, and the nodes are offline",
        "fetch model and data on the login node first; HF_HUB_OFFLINE=0 where nodes are online",
    ),
    (
        r"Address already in use|EADDRINUSE|address family.*already",
        "a port is taken",
        "submit again: another job has other ports",
    ),
    (
        r"ProcessGroupNCCL.*(Watchdog|timeout)|NCCL (error|WARN)|ncclSystemError|ncclRemoteError",
        "NCCL lost a process or timed out",
        "look for the first process that ended; the interface is pinned with NCCL_SOCKET_IFNAME",
    ),
    (
        r"[Gg]loo.*([Tt]imed? ?out|Connection)|Connection closed by peer|Broken pipe|Connection reset by peer|"
        r"DistBackendError|DistNetworkError|DistStoreError",
        "the connection between training processes broke",
        "look for the first process that ended; the interface is pinned with GLOO_SOCKET_IFNAME",
    ),
    (
        r"ImportError|ModuleNotFoundError|undefined symbol|version `.*' not found",
        "packages do not fit each other",
        "install from the lock on all nodes",
    ),
)
"""(pattern in the last lines, likely cause, what to do); the first pattern that matches counts."""

KILLED = (
    "a SIGKILL without a message is most often the memory limit: sacct -j JOB --format=State,MaxRSS or dmesg on the "
    "node say so; ask for more with --set 'cluster.sbatch=[--mem=0]'"
)

BROKEN_CONNECTIONS = frozenset({CAUSES[6][1], CAUSES[7][1]})
"""What a process reports when its peer has died: rarely the cause itself."""


@dataclass(frozen=True)
class Failure:
    """A task that ended unsuccessfully, or a node that went silent."""

    node: int
    host: str
    role: str
    """A task (prepare, serve, train, compare, report), or node (silent), wait or watchdog (something took too long)."""
    code: int | None
    """Exit code, negative for a signal; None when no process ended."""
    why: str
    tail: tuple[str, ...] = ()
    cause: str | None = None
    hint: str | None = None

    @property
    def outcome(self) -> int:
        """FAILED or REFUSED if another attempt would end the same way; TRY_AGAIN if it need not, or the task asks."""
        if self.code == REFUSED:
            return REFUSED
        broken = self.cause in BROKEN_CONNECTIONS or self.cause == "a port is taken"
        killed = self.killed_by is not None and self.cause is None
        passing = self.role in ("node", "wait", "serve", "watchdog") or self.code == TRY_AGAIN
        return TRY_AGAIN if passing or broken or killed else FAILED

    @property
    def killed_by(self) -> int | None:
        """The signal that ended the process, or one of its ranks as torchrun reports it."""
        if self.code is not None and self.code < 0:
            return -self.code
        reported = re.search(r"exitcode\s*: -(\d+)", "\n".join(self.tail))
        return int(reported[1]) if reported else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"signal": self.killed_by}

    def text(self) -> str:
        """The lines for the job's output."""
        ended = f": {self.why}" if self.why else ""
        lines = [f"{self.role} on {self.host} (node {self.node}){_exit(self)}{ended}"]
        lines += [f"  | {line}" for line in self.tail[-SHOWN_LINES:]]
        if self.cause:
            lines.append(f"  likely cause: {self.cause}")
        if self.hint:
            lines.append(f"  → {self.hint}")
        return "\n".join(lines)


def failure_of(node: int, host: str, role: str, code: int | None, why: str, tail: Iterable[str]) -> Failure:
    """The failure with its likely cause, if the message or the last lines show a known one."""
    lines = tuple(tail)
    for pattern, cause, hint in CAUSES:
        if re.search(pattern, "\n".join((why, *lines))):
            return Failure(node, host, role, code, why, lines, cause, hint)
    failure = Failure(node, host, role, code, why, lines)
    return replace(failure, hint=KILLED) if failure.killed_by == signal.SIGKILL else failure


def first_cause(failures: Iterable[Failure]) -> Failure:
    """Of failures that came together, the one most likely to have caused the others."""
    return min(failures, key=_consequence)


def _consequence(failure: Failure) -> int:
    if failure.role == "node":
        return 0
    if failure.killed_by is not None:
        return 1
    return 3 if failure.cause in BROKEN_CONNECTIONS else 2


def _exit(failure: Failure) -> str:
    killed = failure.killed_by
    if killed is not None:
        return f" was ended by {_signal(killed)}"
    return "" if failure.code is None else f" ended with exit code {failure.code}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
