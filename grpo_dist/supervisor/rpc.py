"""Messages between the coordinator and the agents: JSON lines in both directions, with heartbeats.

A connection that is silent for LOST_SECONDS counts as lost, whatever TCP says: a node that loses power closes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpo_dist.errors import LaunchError
from grpo_dist.procs.ports import free_ports

HEARTBEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
LONGEST_LINE = 1 << 20

Message = dict[str, Any]


class Connection:
    """One end of a connection. `messages` yields everything but heartbeats until the other end is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @property
    def local_address(self) -> str:
        """The local address of this connection."""
        return self.writer.get_extra_info("sockname")[0]

    def send(self, message: Message) -> None:
        """Queue a message without waiting; one to a lost connection is dropped."""
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the other end is lost."""
        while True:
            line = await self._line()
            if not line.endswith(b"\n"):
                return None
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if message:  # an empty one is a heartbeat
                    return message

    async def messages(self) -> AsyncIterator[Message]:
        """All messages until the other end is lost."""
        while (message := await self.receive()) is not None:
            yield message

    async def send_heartbeats(self) -> None:
        """Send heartbeats until cancelled."""
        while True:
            self.send({})
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def close(self) -> None:
        """Send what is queued, as far as the other end takes it, and close the connection."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.drain(), HEARTBEAT_SECONDS)
        self.writer.close()

    async def _line(self) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readline(), LOST_SECONDS)
        except (OSError, TimeoutError, ValueError):  # reset, silent, or a line that is too long
            return b""


Event = tuple[int, Message]
"""(node, its message)."""

LOST = "lost"


class CoordinatorServer:
    """The coordinator's end of all connections. A client that does not know the token is disconnected."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.nodes: dict[int, Connection] = {}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._end_message: Message | None = None
        self._departed: set[int] = set()
        self._heartbeats: set[asyncio.Task[None]] = set()

    async def listen(self, ports: range) -> int:
        """Listen on the first free port of `ports`, and return it.

        Raises:
            LaunchError: all of them are taken.
        """
        for port in free_ports(ports):
            try:
                self.server = await asyncio.start_server(self._accept, port=port, limit=LONGEST_LINE)
            except OSError:  # taken in the meantime
                continue
            return port
        raise LaunchError(
            f"all ports from {ports[0]} to {ports[-1]} are taken on this node",
            hint="another program holds them; submit again: another job has other ports",
        )

    def send(self, message: Message, nodes: Iterable[int] | None = None) -> None:
        """Send to these nodes, by default to all."""
        for node in self.nodes if nodes is None else nodes:
            self.nodes[node].send(message)

    def end_agents(self, code: int) -> None:
        """Make all agents end with this exit code, late ones included. From now on a closed connection is no loss."""
        self._end_message = {"bye": code}
        self._departed |= set(self.nodes)
        self.send(self._end_message)

    async def close(self) -> None:
        for heartbeat in self._heartbeats:
            heartbeat.cancel()
        await asyncio.gather(*(connection.close() for connection in self.nodes.values()))
        self.server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        hello = await connection.receive()
        if not self._is_agent(hello):
            writer.close()
            return
        node = int(hello["node"])
        connection.send({"welcome": True})
        self.nodes[node] = connection
        if self._end_message is not None:
            self._departed.add(node)
            connection.send(self._end_message)
        heartbeat = asyncio.create_task(connection.send_heartbeats())
        self._heartbeats.add(heartbeat)
        self.events.put_nowait((node, hello))
        async for message in connection.messages():
            self.events.put_nowait((node, message))
        heartbeat.cancel()
        if node not in self._departed:
            self._departed.add(node)
            self.events.put_nowait((node, {"event": LOST}))

    def _is_agent(self, hello: Any) -> bool:
        return (
            isinstance(hello, dict)
            and hmac.compare_digest(str(hello.get("token")).encode(), self.token.encode())
            and hello.get("node") not in self.nodes
        )
