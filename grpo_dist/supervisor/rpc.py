"""The connection between the head node's supervisor and each other one: JSON lines both ways, and signs of life.

A connection that is silent for LOST_SECONDS is lost, whatever TCP says: a node without power sends no farewell.

The head's end of all connections: who is there, what they report, and orders to them.
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

BEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
LONGEST_LINE = 1 << 20

Message = dict[str, Any]


class Connection:
    """One end of it. Whoever iterates receives the messages that are not signs of life, until the other end is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @property
    def here(self) -> str:
        """Our address on the way to the other end."""
        return self.writer.get_extra_info("sockname")[0]

    @property
    def there(self) -> str:
        return self.writer.get_extra_info("peername")[0]

    def send(self, message: Message) -> None:
        """Never waits; to a lost connection it says nothing."""
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
                if message:  # an empty one is a sign of life
                    return message

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self.receive()) is not None:
            yield message

    async def beat(self) -> None:
        """Give signs of life until cancelled."""
        while True:
            self.send({})
            await asyncio.sleep(BEAT_SECONDS)

    async def close(self) -> None:
        """Send what is waiting, as far as the other end takes it, and hang up."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.drain(), BEAT_SECONDS)
        self.writer.close()

    async def _line(self) -> bytes:
        try:
            return await asyncio.wait_for(self.reader.readline(), LOST_SECONDS)
        except (OSError, TimeoutError, ValueError):  # reset, silent, or a line of somebody else's
            return b""


Event = tuple[int, Message]
"""(node, what it reports)."""

LOST = "lost"


class CoordinatorServer:
    """Listens for the supervisors of a job's nodes. Whoever does not know the token is hung up on."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.nodes: dict[int, Connection] = {}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._goodbye: Message | None = None
        self._gone: set[int] = set()
        self._beats: set[asyncio.Task[None]] = set()

    async def listen(self, ports: range) -> int:
        """Returns the first of the ports nothing listened on.

        Raises:
            LaunchError: all are taken.
        """
        for port in free_ports(ports):
            try:
                self.server = await asyncio.start_server(self._meet, port=port, limit=LONGEST_LINE)
            except OSError:  # taken since
                continue
            return port
        raise LaunchError(
            f"all ports from {ports[0]} to {ports[-1]} are taken on this node",
            hint="another program holds them; submit again: another job has other ports",
        )

    def order(self, order: Message, nodes: Iterable[int] | None = None) -> None:
        for node in self.nodes if nodes is None else nodes:
            self.nodes[node].send(order)

    def say_goodbye(self, code: int) -> None:
        """Have all supervisors end with this exit code, those that come late as well: none is lost from now on."""
        self._goodbye = {"bye": code}
        self._gone |= set(self.nodes)
        self.order(self._goodbye)

    async def close(self) -> None:
        for beat in self._beats:
            beat.cancel()
        await asyncio.gather(*(connection.close() for connection in self.nodes.values()))
        self.server.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        hello = await connection.receive()
        if not self._is_ours(hello):
            writer.close()
            return
        node = int(hello["node"])
        connection.send({"welcome": True})
        self.nodes[node] = connection
        if self._goodbye is not None:
            self._gone.add(node)
            connection.send(self._goodbye)
        beat = asyncio.create_task(connection.beat())
        self._beats.add(beat)
        self.events.put_nowait((node, hello))
        async for message in connection.messages():
            self.events.put_nowait((node, message))
        beat.cancel()
        if node not in self._gone:
            self._gone.add(node)
            self.events.put_nowait((node, {"event": LOST}))

    def _is_ours(self, hello: Any) -> bool:
        return (
            isinstance(hello, dict)
            and hmac.compare_digest(str(hello.get("token")).encode(), self.token.encode())
            and hello.get("node") not in self.nodes
        )
