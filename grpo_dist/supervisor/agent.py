"""The agent of one node: it reports what the node has, and runs the tasks that the coordinator asks for.

If the connection to the coordinator is lost, the agent ends everything on its node. Messages from the coordinator:

    {"prove": NONCE}                               check the shared run directory: read a file there, and write one
    {"start": TASK, "address": …, "port": …}       run a task: prepare, serve, train, compare or report
    {"stop": TASK}                                 end that task
    {"dump": true}                                 write the stacks of all training processes to their log
    {"bye": CODE}                                  end with this exit code

Messages to the coordinator, by their `event`: hello (facts, or refused: why), proved (problem), ready (part),
ended (part, code, reason, tail), signal (number). `part` is the name of a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from grpo_dist.errors import GrpoDistError, LaunchError
from grpo_dist.launch.process import ProgressRelay
from grpo_dist.procs.tree import become_subreaper, descendants, dump_stacks, end
from grpo_dist.progress import Terminal
from grpo_dist.run.control import TRY_AGAIN
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.supervisor.preflight import node_info
from grpo_dist.supervisor.rpc import BROKEN, HELLO_BYTES, Connection, Message, Secret
from grpo_dist.supervisor.shared_fs_check import LAG_SECONDS, answer
from grpo_dist.supervisor.task import POLL_SECONDS, Task, TaskCommands, TaskPlace

SURVIVED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals an agent survives: Slurm sends them to a step before it ends the step."""
RETRY_SECONDS = 0.5
WELCOME_SECONDS = 3.0
"""For the coordinator to answer. Another program on that port may never do so."""
HEAD_FILE = "head.json"
"""In the log directory of an attempt, while it goes on: where the coordinator listens."""

Places = Callable[[], Sequence[tuple[str, int]]]
"""Addresses and ports at which the coordinator may be found; asked again before every try."""


class NodeAgent:
    """One node of the job."""

    def __init__(self, node: int, run: RunDirectory, attempt: Path) -> None:
        self.node, self.run, self.attempt = node, run, attempt
        self.tasks: dict[str, Task] = {}
        self.background: set[asyncio.Task[None]] = set()

    async def serve(self, places: Places, secret: Secret, limit: float) -> int:
        """Serve the coordinator until it sends the exit code, and return that code.

        Args:
            limit: seconds in which the coordinator must be found.

        Raises:
            LaunchError: the coordinator cannot be reached.
        """
        become_subreaper()
        facts = await asyncio.to_thread(self._facts)
        self.head = await connect(places, secret, self.node, limit)
        self.head.send({"event": "hello", **facts})
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

    def _facts(self) -> Message:
        try:
            return {"facts": node_info(self.node, self.run).to_dict()}
        except GrpoDistError as error:  # the whole job ends with it, and is not tried again
            return {"refused": str(error)}

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
            code = getattr(error, "exit_code", 1)
            self.head.send({"event": "ended", "part": name, "code": code, "reason": str(error), "tail": []})
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


@contextlib.contextmanager
def announced(attempt: Path, port: int, hosts: Sequence[str]) -> Iterator[None]:
    """Within, the run directory says where the coordinator listens. On a full disk the nodes have to try all ports."""
    with contextlib.suppress(OSError):
        write_json(attempt / HEAD_FILE, {"hosts": list(hosts), "port": port})
    yield
    with contextlib.suppress(OSError):
        (attempt / HEAD_FILE).unlink()


def head_places(attempt: Path, heads: Sequence[str], ports: range) -> Places:
    """Where to find the coordinator: as the run directory says.

    A node that does not see the run directory, or sees another one, tries all ports of the job, so that the coordinator
    can say so: nobody else on those ports can prove to be the coordinator.

    Args:
        heads: names or addresses of the coordinator's node, tried in turn.
    """
    patience = time.monotonic() + LAG_SECONDS

    def places() -> list[tuple[str, int]]:
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError, TypeError):
            found = json.loads((attempt / HEAD_FILE).read_text(encoding="utf-8"))
            return [(str(host), int(found["port"])) for host in dict.fromkeys([*heads, *found["hosts"]])]
        if attempt.is_dir() and time.monotonic() < patience:
            return []
        return [(head, port) for head in heads for port in ports]

    return places


async def connect(places: Places, secret: Secret, node: int, limit: float) -> Connection:
    """Connect to the first program at these places that proves to be the coordinator of this attempt.

    Raises:
        LaunchError: there was none within `limit` seconds.
    """
    tried: Sequence[tuple[str, int]] = ()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            while True:
                tried = await asyncio.to_thread(places) or tried
                for head, port in tried:
                    if found := await _try_connect(head, port, secret, node):
                        return found
                await asyncio.sleep(RETRY_SECONDS)
    where = ", ".join(dict.fromkeys(head for head, _ in tried)) or "the address that the run directory should have"
    ports = sorted({port for _, port in tried})
    between = f", ports {ports[0]} to {ports[-1]}" if ports else ""
    raise LaunchError(
        f"node {node}: no answer from the head within {limit:.0f} s at {where}{between}",
        hint="do node names resolve here, and does a firewall keep nodes apart?",
    )


async def _try_connect(head: str, port: int, secret: Secret, node: int) -> Connection | None:
    try:
        opened = asyncio.open_connection(head, port, limit=HELLO_BYTES)
        reader, writer = await asyncio.wait_for(opened, WELCOME_SECONDS)
    except (OSError, TimeoutError):
        return None
    connection = Connection(reader, writer)
    with contextlib.suppress(*BROKEN):
        if await asyncio.wait_for(connection.prove_agent(secret, node), WELCOME_SECONDS):
            return connection
    writer.close()
    return None
