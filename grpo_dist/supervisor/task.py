"""The tasks of a run on one node: their commands and environments, and a task as a running process.

A task is one stage of the run (prepare, train, compare), `serve` or `report`. Its output goes to a log, its progress
messages to the output of the job.
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
from grpo_dist.launch.open import check_as_started
from grpo_dist.launch.process import ProgressRelay
from grpo_dist.launch.stages import QUIET, Machine, allocator_environment, device_environment, stages
from grpo_dist.plan import LaunchPlan
from grpo_dist.plan.launch import read_plan
from grpo_dist.procs.ports import interface_of
from grpo_dist.procs.shared_memory import LOOK_SECONDS, SharedMemory
from grpo_dist.procs.tree import Process, descendants, die_with_parent, end_all, ignore_sigterm_until_exec
from grpo_dist.run.directory import ATTEMPT_VARIABLE, RunDirectory
from grpo_dist.run.metrics import tracker_environment

TAIL_LINES = 60
LONGEST_LINE = 1 << 20
POLL_SECONDS = 0.1
GRACE_SECONDS = 12.0
"""For rollout servers to end. A failed job must be gone from all nodes within 30 s."""


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended."""

    code: int
    """The exit code it announced, else that of the process; negative for a signal."""
    reason: str
    """The reason the task gave for failing; empty if it gave none."""
    tail: tuple[str, ...]


@dataclass(frozen=True)
class TaskCommand:
    """How to start a task."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    ends_on_sigterm: bool = False
    """The task shuts down properly on SIGTERM. Other tasks are shielded from it: without cgroups Slurm sends SIGTERM to
    every process of a job, and torchrun would end the ranks before they can save."""


@dataclass
class Task:
    """A running task: its process and all descendants."""

    command: TaskCommand
    process: asyncio.subprocess.Process
    relay: ProgressRelay
    on_line: Callable[[str], None]
    """Called with every line of output."""
    other_pids: Callable[[], set[int]]
    """Process ids of this node's other tasks. A descendant of the agent that is not below one of them belongs to this
    task: orphans of a killed launcher become children of the agent."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    def __post_init__(self) -> None:
        self.shared = SharedMemory(self.processes)

    @classmethod
    async def start(
        cls,
        command: TaskCommand,
        relay: ProgressRelay,
        on_line: Callable[[str], None],
        other_pids: Callable[[], set[int]],
    ) -> Task:
        """Start the process; await `ended` to follow it."""
        command.log.touch()
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env={**command.env, **relay.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LONGEST_LINE,
            start_new_session=True,
            preexec_fn=die_with_parent if command.ends_on_sigterm else _shield_from_sigterm,
        )
        asyncio.get_running_loop().add_reader(relay.control, relay.read)
        return cls(command, process, relay, on_line, other_pids)

    async def ended(self) -> TaskEnd:
        """Wait for the process to end, and clean up everything it left behind."""
        reading, looking = asyncio.create_task(self._read()), asyncio.create_task(self._look())
        code = await self._exit()
        looking.cancel()
        await asyncio.to_thread(self._clean)
        await reading
        self.relay.read()
        asyncio.get_running_loop().remove_reader(self.relay.control)
        self.relay.control.close()
        return TaskEnd(self.relay.code(code), self.relay.reason, tuple(self.tail))

    async def stop(self) -> None:
        """End the process. `ended` then ends its descendants and returns."""
        if self.command.ends_on_sigterm and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait({asyncio.ensure_future(self._exit())}, timeout=GRACE_SECONDS)
        if self.process.returncode is None:
            self.process.kill()

    def processes(self) -> set[Process]:
        """All living processes of this task."""
        return descendants(os.getpid(), but=self.other_pids())

    def _clean(self) -> None:
        self.shared.look()
        end_all(self.processes)
        self.shared.remove()

    async def _look(self) -> None:
        while True:
            await asyncio.to_thread(self.shared.look)
            await asyncio.sleep(LOOK_SECONDS)

    async def _exit(self) -> int:
        """The exit code, at once. asyncio's own `wait` also waits for descendants that hold the output open."""
        while self.process.returncode is None:
            await asyncio.sleep(POLL_SECONDS)
        return self.process.returncode

    async def _read(self) -> None:
        with open(self.command.log, "ab", buffering=0) as record:
            while line := await self._line():
                with contextlib.suppress(OSError):  # a full disk; the terminal still gets the line
                    # In a thread: a slow file server must not delay the heartbeats.
                    await asyncio.to_thread(record.write, line)
                text = line.decode(errors="replace").rstrip("\n")
                self.tail.append(text)
                self.on_line(text)

    async def _line(self) -> bytes:
        try:
            return await self.process.stdout.readline()
        except ValueError:  # longer than LONGEST_LINE
            return b"(a line too long to be kept)\n"


def _shield_from_sigterm() -> None:
    die_with_parent()
    ignore_sigterm_until_exec()


INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""Nothing is downloaded in a job: compute nodes often have no network, and libraries would retry for minutes."""


@dataclass(frozen=True)
class TaskPlace:
    """Where a task runs."""

    rank: int
    """Number of the node among those that train."""
    main_address: str
    main_port: int
    address: str
    """Address at which the other nodes reach this one."""


@dataclass(frozen=True)
class TaskCommands:
    """The task commands of one node. The plan is read when a task starts, which is after the preflight compared it."""

    run: RunDirectory
    attempt: Path
    node: int

    def command(self, name: str, place: TaskPlace) -> TaskCommand:
        """How to start the task of this name.

        Raises:
            GrpoDistError: configuration or plan cannot be read, or do not fit this node.
        """
        check_as_started(self.run)
        config = load_config(self.run.config)
        plan = read_plan(self.run)
        several = plan.topology.trainer_nodes > 1
        machine = Machine(place.rank, place.main_address, place.main_port) if several else None
        env = {**os.environ, **QUIET, **tracker_environment(config.tracking, self.run, os.environ, config.grpo.project)}
        env |= {name: value for name, value in OFFLINE.items() if name not in os.environ}
        env |= self._network(plan, place) | {ATTEMPT_VARIABLE: str(self.attempt)}
        if name == "serve":
            argv = (sys.executable, "-m", "grpo_dist", "serve", str(self.run.path))
            argv += ("--node", str(self.node), "--host", place.address)
            return TaskCommand(name, argv, env, self._log(name), ends_on_sigterm=True)
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
        """Variables that select the network interface to the other nodes, unless one is set already."""
        if plan.topology.nodes == 1:
            return {}
        interface = interface_of(place.address)
        pinned = {name: interface for name in INTERFACE_VARIABLES if interface and name not in os.environ}
        return pinned if "VLLM_HOST_IP" in os.environ else {**pinned, "VLLM_HOST_IP": place.address}
