"""One process of a run on this node, watched: its output to a log, what it says to the job's output, how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpo_dist.cluster.lifeline import die_with_parent, shelter_from_sigterm
from grpo_dist.cluster.process import Speech
from grpo_dist.cluster.tree import Process, descendants, end, remove_unused, shared_memory

TAIL_LINES = 60
LONGEST_LINE = 1 << 20
POLL_SECONDS = 0.1
GRACE_SECONDS = 12.0
"""For what has replicas to end; a job that failed is to be gone from all nodes within 30 s."""


@dataclass(frozen=True)
class End:
    """How a part ended."""

    code: int
    """The one it stated, else as subprocess has it: negative for the signal that ended it."""
    reason: str
    """The part's own words, empty when it had none."""
    tail: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """What starts a part."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    heeds_sigterm: bool = False
    """It ends well on SIGTERM. From others SIGTERM is kept away: where Slurm has no cgroups it sends it to every
    process of a job, and torchrun would end the ranks before they can save."""


@dataclass
class Part:
    """A started process and everything below it."""

    command: Command
    process: asyncio.subprocess.Process
    speech: Speech
    hear: Callable[[str], None]
    """Called with every line."""
    others: Callable[[], set[int]]
    """The processes of this node's other parts. What is below us and not below them is this part's: where a launcher
    was killed, its orphans are ours."""
    shared_before: set[str]
    """What lay in /dev/shm when it started."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    @classmethod
    async def start(
        cls, command: Command, speech: Speech, hear: Callable[[str], None], others: Callable[[], set[int]]
    ) -> Part:
        before = shared_memory()
        command.log.touch()
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LONGEST_LINE,
            start_new_session=True,
            preexec_fn=die_with_parent if command.heeds_sigterm else _sheltered,
        )
        return cls(command, process, speech, hear, others, before)

    async def ended(self) -> End:
        """Wait for it; nothing of it is left then."""
        reading = asyncio.create_task(self._read())
        code = await self._exit()
        await asyncio.to_thread(self._clean)
        await reading
        return End(self.speech.code(code), self.speech.reason, tuple(self.tail))

    async def stop(self) -> None:
        """End it; `ended` then ends what is below it and returns."""
        if self.command.heeds_sigterm and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait({asyncio.ensure_future(self._exit())}, timeout=GRACE_SECONDS)
        if self.process.returncode is None:
            self.process.kill()

    def below(self) -> set[Process]:
        return descendants(os.getpid(), but=self.others())

    def _clean(self) -> None:
        while below := self.below():  # what a dying process has just started is found the next time
            end(below)
        remove_unused(shared_memory() - self.shared_before)

    async def _exit(self) -> int:
        """Its exit code, at once; asyncio's own `wait` may wait for everyone who holds its output open."""
        while self.process.returncode is None:
            await asyncio.sleep(POLL_SECONDS)
        return self.process.returncode

    async def _read(self) -> None:
        with open(self.command.log, "ab", buffering=0) as record:
            while line := await self._line():
                with contextlib.suppress(OSError):  # a full disk; the terminal and the head hear it all the same
                    # In a thread: a file server may take its time, signs of life may not.
                    await asyncio.to_thread(record.write, line)
                text = line.decode(errors="replace").rstrip("\n")
                self.tail.append(text)
                self.speech.hear(text)
                self.hear(text)

    async def _line(self) -> bytes:
        try:
            return await self.process.stdout.readline()
        except ValueError:  # longer than any line of text is
            return b"(a line too long to be kept)\n"


def _sheltered() -> None:
    die_with_parent()
    shelter_from_sigterm()
