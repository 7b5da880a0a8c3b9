"""The agent of one node: it reports what the node has, and runs the tasks that the coordinator asks for.

If the connection to the coordinator is lost, the agent ends everything on its node. Messages from the coordinator:

    {"prove": NONCE}                               check the shared run directory: read a file there, and write one
    {"start": TASK, "address": …, "port": …}       run a task: prepare, serve, train, compare or report
    {"stop": TASK}                                 end that task
    {"dump": true}                                 write the stacks of all training processes to their log
    {"bye": CODE}                                  end with this exit code

Messages to the coordinator, by their `event`: hello (token, node, facts), proved (problem), ready (part),
ended (part, code, reason, tail), signal (number). `part` is the name of a task.
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
from grpo_dist.procs.tree import become_subreaper, descendants, dump_stacks, end
from grpo_dist.progress import Terminal
from grpo_dist.run.control import TRY_AGAIN
from grpo_dist.run.directory import RunDirectory
from grpo_dist.supervisor.preflight import node_info
from grpo_dist.supervisor.rpc import LONGEST_LINE, Connection, Message
from grpo_dist.supervisor.shared_fs_check import answer
from grpo_dist.supervisor.task import POLL_SECONDS, Task, TaskCommands, TaskPlace

SURVIVED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals an agent survives: Slurm sends them to a step before it ends the step."""
RETRY_SECONDS = 0.5
WELCOME_SECONDS = 3.0
"""For the coordinator to answer. Another program on that port may never do so."""


class NodeAgent:
    """One node of the job."""

    def __init__(self, node: int, run: RunDirectory, attempt: Path) -> None:
        self.node, self.run, self.attempt = node, run, attempt
        self.tasks: dict[str, Task] = {}
        self.background: set[asyncio.Task[None]] = set()

    async def serve(self, heads: Sequence[str], ports: range, token: str, limit: float) -> int:
        """Serve the coordinator until it sends the exit code, and return that code.

        Args:
            heads: names or addresses of the coordinator's node, tried in turn.
            limit: seconds in which the coordinator must be found.

        Raises:
            LaunchError: the coordinator cannot be reached.
        """
        become_subreaper()
        hello = {"event": "hello", "token": token, "node": self.node}
        hello["facts"] = (await asyncio.to_thread(node_info, self.node, self.run)).to_dict()
        self.head = await connect(heads, ports, hello, limit)
        self._handle_signals()
        self._spawn(self.head.send_heartbeats())
        code = TRY_AGAIN
        try:
            async for message in self.head.messages():
                if "bye" in message:
                    code = message["bye"]
                    break
                self._spawn(self._execute(message))
            else:
                print(f"node {self.node}: the head is lost; ending everything here", file=sys.stderr, flush=True)
        finally:
            await self._end_all()
            await self.head.close()
        return code

    async def _execute(self, message: Message) -> None:
        if "prove" in message:
            problem = await asyncio.to_thread(answer, self.attempt, self.node, message["prove"])
            self.head.send({"event": "proved", "problem": problem})
        elif "start" in message:
            # Node 0 may reach the coordinator at 127.0.0.1, an address that is useless to the other nodes.
            own = message["address"] if self.node == 0 else self.head.local_address
            await self._run(message["start"], TaskPlace(self.node, message["address"], message["port"], own))
        elif "stop" in message:
            if task := self.tasks.get(message["stop"]):
                await task.stop()
        elif "dump" in message:
            for task in list(self.tasks.values()):
                await asyncio.to_thread(lambda task=task: dump_stacks(task.processes()))

    async def _run(self, name: str, place: TaskPlace) -> None:
        try:
            command = TaskCommands(self.run, self.attempt, self.node).command(name, place)
            task = await Task.start(
                command,
                ProgressRelay(Terminal()),
                lambda line: self._handle_line(name, line),
                lambda: self._other_pids(name),
            )
        except Exception as error:  # no such program, a plan that does not fit: the coordinator decides what follows
            self.head.send({"event": "ended", "part": name, "code": 1, "reason": str(error), "tail": []})
            return
        self.tasks[name] = task
        ended = await task.ended()
        del self.tasks[name]
        self.head.send(
            {"event": "ended", "part": name, "code": ended.code, "reason": ended.reason, "tail": list(ended.tail)}
        )

    def _handle_line(self, name: str, line: str) -> None:
        if name == "serve" and line.startswith('{"replicas"'):
            self.head.send({"event": "ready", "part": name})

    def _other_pids(self, name: str) -> set[int]:
        return {task.process.pid for other, task in self.tasks.items() if other != name}

    async def _end_all(self) -> None:
        await asyncio.gather(*(task.stop() for task in list(self.tasks.values())))
        while self.tasks:
            await asyncio.sleep(POLL_SECONDS)
        for work in self.background:
            work.cancel()
        await asyncio.to_thread(lambda: end(descendants(os.getpid())))

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in SURVIVED_SIGNALS:
            loop.add_signal_handler(signum, self.head.send, {"event": "signal", "number": int(signum)})

    def _spawn(self, work) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)


async def connect(heads: Sequence[str], ports: range, hello: Message, limit: float) -> Connection:
    """Connect to the first program at these addresses and ports that accepts the token in `hello`.

    Raises:
        LaunchError: there was none within `limit` seconds.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            while True:
                for head in heads:
                    for port in ports:
                        if found := await _try_connect(head, port, hello):
                            return found
                await asyncio.sleep(RETRY_SECONDS)
    raise LaunchError(
        f"node {hello['node']}: no answer from the head within {limit:.0f} s at {' or '.join(heads)}, "
        f"ports {ports[0]} to {ports[-1]}",
        hint="do node names resolve here, and does a firewall keep nodes apart?",
    )


async def _try_connect(head: str, port: int, hello: Message) -> Connection | None:
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
