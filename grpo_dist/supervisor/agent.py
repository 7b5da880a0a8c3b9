"""The supervisor of one node: it tells the head what there is, and does what the head orders.

Its connection to the head is its lifeline: without it everything on the node is ended. What the head may order:

    prove {nonce}                     read a file of the head's in the run directory, and write one
    start {part, address, port}       a part of the run: prepare, serve, train, compare or report
    stop  {part}                      end it
    dump                              stacks of all training processes into their log
    bye   {code}                      end with this exit code

What it reports: hello {token, node, facts}, proved {problem}, ready {part}, ended {part, code, reason, tail},
signal {number}.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from grpo_dist.errors import LaunchError
from grpo_dist.launch.process import ProgressRelay
from grpo_dist.procs.parent_death import become_subreaper
from grpo_dist.procs.tree import descendants, dump_stacks, end
from grpo_dist.progress import Terminal
from grpo_dist.run.control import TRY_AGAIN
from grpo_dist.run.directory import RunDirectory
from grpo_dist.supervisor.preflight import node_info
from grpo_dist.supervisor.rpc import LONGEST_LINE, Connection, Message
from grpo_dist.supervisor.shared_fs_check import answer
from grpo_dist.supervisor.task import POLL_SECONDS, Task, TaskCommands, TaskPlace

NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals a supervisor survives: Slurm sends them to steps before it ends them."""
RETRY_SECONDS = 0.5
WELCOME_SECONDS = 3.0
"""For the head to answer; another program on its port may never do."""


class NodeAgent:
    """One node of the job."""

    def __init__(self, node: int, run: RunDirectory, attempt: Path) -> None:
        self.node, self.run, self.attempt = node, run, attempt
        self.parts: dict[str, Task] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, heads: Sequence[str], ports: range, token: str, limit: float) -> int:
        """Until the head says good-bye; returns the exit code.

        Args:
            heads: names or addresses of the head's node, tried in turn.
            limit: seconds to find the head in.

        Raises:
            LaunchError: the head cannot be reached.
        """
        become_subreaper()
        hello = {"event": "hello", "token": token, "node": self.node}
        hello["facts"] = (await asyncio.to_thread(node_info, self.node, self.run)).to_dict()
        self.head = await connect(heads, ports, hello, limit)
        self._heed_signals()
        self._spawn(self.head.beat())
        code = TRY_AGAIN
        try:
            async for order in self.head.messages():
                if "bye" in order:
                    code = order["bye"]
                    break
                self._spawn(self._obey(order))
            else:
                print(f"node {self.node}: the head is lost; ending everything here", file=sys.stderr, flush=True)
        finally:
            await self._end_all()
            await self.head.close()
        return code

    async def _obey(self, order: Message) -> None:
        if "prove" in order:
            problem = await asyncio.to_thread(answer, self.attempt, self.node, order["prove"])
            self.head.send({"event": "proved", "problem": problem})
        elif "start" in order:
            # The head's own way to itself may be 127.0.0.1, which nobody else could use.
            here = order["address"] if self.node == 0 else self.head.here
            await self._run(order["start"], TaskPlace(self.node, order["address"], order["port"], here))
        elif "stop" in order:
            if part := self.parts.get(order["stop"]):
                await part.stop()
        elif "dump" in order:
            for part in list(self.parts.values()):
                await asyncio.to_thread(lambda part=part: dump_stacks(part.below()))

    async def _run(self, name: str, place: TaskPlace) -> None:
        try:
            command = TaskCommands(self.run, self.attempt, self.node).command(name, place)
            part = await Task.start(
                command, ProgressRelay(Terminal()), lambda line: self._hear(name, line), lambda: self._others(name)
            )
        except Exception as error:  # no such program, a plan that does not fit: whatever it is, the head decides
            self.head.send({"event": "ended", "part": name, "code": 1, "reason": str(error), "tail": []})
            return
        self.parts[name] = part
        ended = await part.ended()
        del self.parts[name]
        self.head.send(
            {"event": "ended", "part": name, "code": ended.code, "reason": ended.reason, "tail": list(ended.tail)}
        )

    def _hear(self, name: str, line: str) -> None:
        if name == "serve" and line.startswith('{"replicas"'):
            self.head.send({"event": "ready", "part": name})

    def _others(self, name: str) -> set[int]:
        return {part.process.pid for other, part in self.parts.items() if other != name}

    async def _end_all(self) -> None:
        await asyncio.gather(*(part.stop() for part in list(self.parts.values())))
        while self.parts:
            await asyncio.sleep(POLL_SECONDS)
        for task in self.tasks:
            task.cancel()
        await asyncio.to_thread(lambda: end(descendants(os.getpid())))

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in NOTED:
            loop.add_signal_handler(signum, self.head.send, {"event": "signal", "number": int(signum)})

    def _spawn(self, work) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def connect(heads: Sequence[str], ports: range, hello: Message, limit: float) -> Connection:
    """Connect to the first program behind these addresses and ports that knows the token.

    Raises:
        LaunchError: within limit seconds there was none.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            while True:
                for head in heads:
                    for port in ports:
                        if found := await _try(head, port, hello):
                            return found
                await asyncio.sleep(RETRY_SECONDS)
    raise LaunchError(
        f"node {hello['node']}: no answer from the head within {limit:.0f} s at {' or '.join(heads)}, "
        f"ports {ports[0]} to {ports[-1]}",
        hint="do node names resolve here, and does a firewall keep nodes apart?",
    )


async def _try(head: str, port: int, hello: Message) -> Connection | None:
    try:
        opened = asyncio.open_connection(head, port, limit=LONGEST_LINE)
        reader, writer = await asyncio.wait_for(opened, WELCOME_SECONDS)
    except (OSError, TimeoutError):
        return None
    connection = Connection(reader, writer)
    connection.send(hello)
    with contextlib.suppress(TimeoutError):
        if await asyncio.wait_for(connection.receive(), WELCOME_SECONDS) == {"welcome": True}:
            return connection
    writer.close()
    return None
