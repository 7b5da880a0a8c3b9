"""One process of a run on this node, watched: its output to a log, what it says to the job's output, how it ended.

What a node runs for each part of a run, and in which environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grpo_dist.config import load_config
from grpo_dist.launch.process import ProgressRelay
from grpo_dist.launch.stages import QUIET, Machine, allocator_environment, device_environment, stages
from grpo_dist.plan import LaunchPlan
from grpo_dist.procs.parent_death import die_with_parent, ignore_sigterm_until_exec
from grpo_dist.procs.ports import interface_of
from grpo_dist.procs.tree import Process, descendants, end, remove_unused, shared_memory
from grpo_dist.run.directory import ATTEMPT_VARIABLE, RunDirectory
from grpo_dist.run.trackers import tracker_environment

TAIL_LINES = 60
LONGEST_LINE = 1 << 20
POLL_SECONDS = 0.1
GRACE_SECONDS = 12.0
"""For what has replicas to end; a job that failed is to be gone from all nodes within 30 s."""


@dataclass(frozen=True)
class TaskEnd:
    """How a part ended."""

    code: int
    """The one it stated, else as subprocess has it: negative for the signal that ended it."""
    reason: str
    """The part's own words, empty when it had none."""
    tail: tuple[str, ...]


@dataclass(frozen=True)
class TaskCommand:
    """What starts a part."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    heeds_sigterm: bool = False
    """It ends well on SIGTERM. From others SIGTERM is kept away: where Slurm has no cgroups it sends it to every
    process of a job, and torchrun would end the ranks before they can save."""


@dataclass
class Task:
    """A started process and everything below it."""

    command: TaskCommand
    process: asyncio.subprocess.Process
    speech: ProgressRelay
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
        cls, command: TaskCommand, speech: ProgressRelay, hear: Callable[[str], None], others: Callable[[], set[int]]
    ) -> Task:
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

    async def ended(self) -> TaskEnd:
        """Wait for it; nothing of it is left then."""
        reading = asyncio.create_task(self._read())
        code = await self._exit()
        await asyncio.to_thread(self._clean)
        await reading
        return TaskEnd(self.speech.code(code), self.speech.reason, tuple(self.tail))

    async def stop(self) -> None:
        """TaskEnd it; `ended` then ends what is below it and returns."""
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
    ignore_sigterm_until_exec()


INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Nothing is fetched in a job: compute nodes often cannot, and then libraries wait and try again for minutes."""


@dataclass(frozen=True)
class TaskPlace:
    """Where a part runs."""

    rank: int
    """Among the nodes that train."""
    main_address: str
    main_port: int
    here: str
    """This node's address on the way to the others."""


@dataclass(frozen=True)
class TaskCommands:
    """Of one node; the plan is read when a part is started, which is after the preflight has compared it."""

    run: RunDirectory
    attempt: Path
    node: int

    def command(self, name: str, place: TaskPlace) -> TaskCommand:
        """
        Raises:
            GrpoDistError: configuration or plan cannot be read, or do not fit this node.
        """
        config = load_config(self.run.config)
        plan = LaunchPlan.from_json(self.run.plan.read_text(encoding="utf-8"))
        several = plan.topology.trainer_nodes > 1
        machine = Machine(place.rank, place.main_address, place.main_port) if several else None
        env = {**os.environ, **QUIET, **tracker_environment(config.tracking, self.run, os.environ)}
        env |= {name: value for name, value in OFFLINE.items() if name not in os.environ}
        env |= self._network(plan, place) | {ATTEMPT_VARIABLE: str(self.attempt)}
        if name == "serve":
            argv = (sys.executable, "-m", "grpo_dist", "serve", str(self.run.path))
            argv += ("--node", str(self.node), "--host", place.here)
            return TaskCommand(name, argv, env, self._log(name), heeds_sigterm=True)
        if name == "report":
            argv = (sys.executable, "-m", "grpo_dist", "report", str(self.run.path))
            return TaskCommand(name, argv, env, self._log(name))
        stage = next(stage for stage in stages(self.run, plan, config, machine) if stage.name == name)
        env |= device_environment(plan.topology, env, alone=stage.alone)
        env |= allocator_environment(config, plan.topology, env)
        return TaskCommand(name, stage.argv, env, self._log(name))

    def _log(self, name: str) -> Path:
        return self.attempt / (f"{name}.log" if self.node == 0 else f"{name}-node{self.node}.log")

    def _network(self, plan: LaunchPlan, place: TaskPlace) -> dict[str, str]:
        """The interface that leads to the other nodes, unless the site has pinned one."""
        if plan.topology.nodes == 1:
            return {}
        interface = interface_of(place.here)
        pinned = {name: interface for name in INTERFACE_VARIABLES if interface and name not in os.environ}
        return pinned if "VLLM_HOST_IP" in os.environ else {**pinned, "VLLM_HOST_IP": place.here}
