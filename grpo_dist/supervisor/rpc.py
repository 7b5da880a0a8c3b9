"""Messages between the coordinator and the agents: authenticated JSON in both directions, with heartbeats.

Both ends know the token of the job, and neither sends it. Each sends a nonce and proves with an HMAC over both, the job
and the attempt that it knows the token; each later message carries an HMAC too, so that nobody in between can add one.
Nothing is encrypted.

A connection that is silent for LOST_SECONDS counts as lost, whatever TCP says: a node that loses power closes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from grpo_dist.errors import LaunchError
from grpo_dist.procs.ports import free_ports

HEARTBEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
LONGEST_MESSAGE = 1 << 24
"""Bytes. Only who has proved to know the token may send as much."""
HELLO_BYTES = 1 << 10
HELLO_SECONDS = 5.0
"""For a client to prove that it knows the token; then its connection is closed."""
HELLOS_PER_PEER, HELLOS = 32, 256
"""Connections of one address, and of all together, that have not proved it yet; beyond these, the oldest is closed.
Whoever is on a node has all of 127.0.0.0/8, and no process may have any number of files open."""
LENGTH = struct.Struct(">I")
BROKEN = (OSError, EOFError, TimeoutError, ValueError, RecursionError, KeyError, TypeError)
"""Reset, closed, silent, or not what the other end would send."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Secret:
    """What the supervisors of one attempt know, and nobody else."""

    token: str
    job: str
    attempt: str

    def proof(self, role: str, node: int, nonces: tuple[str, str]) -> str:
        """An HMAC that only who knows the token can make. `nonces`: that of the agent, then that of the coordinator."""
        said = json.dumps([role, self.job, self.attempt, node, *nonces])
        return hmac.digest(self.token.encode(), said.encode(), "sha256").hex()


class Connection:
    """One end of a connection. `messages` yields everything but heartbeats until the other end is lost."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._sending = self._receiving = _Seal(b"", 0)
        self._longest = HELLO_BYTES

    @property
    def local_address(self) -> str:
        """The local address of this connection."""
        return self.writer.get_extra_info("sockname")[0]

    async def prove_agent(self, secret: Secret, node: int) -> bool:
        """The agent's half of the proof. Returns whether the other end is the coordinator of this attempt."""
        ours = secrets.token_hex(16)
        self.send({"node": node, "nonce": ours})
        answer = await self._receive_any()
        nonces = (ours, str(answer.get("nonce")))
        if not hmac.compare_digest(str(answer.get("proof")).encode(), secret.proof("head", node, nonces).encode()):
            return False
        self.send({"proof": secret.proof("node", node, nonces)})
        self._authenticate(secret.proof("to head", node, nonces), secret.proof("to node", node, nonces))
        return await self.receive() == {"welcome": True}

    async def prove_head(self, secret: Secret) -> int | None:
        """The coordinator's half of the proof. Returns the number of the node, or None if it is no agent."""
        hello, ours = await self._receive_any(), secrets.token_hex(16)
        node, nonces = hello.get("node"), (str(hello.get("nonce")), ours)
        if type(node) is not int:
            return None
        self.send({"nonce": ours, "proof": secret.proof("head", node, nonces)})
        answer = str((await self._receive_any()).get("proof"))
        if not hmac.compare_digest(answer.encode(), secret.proof("node", node, nonces).encode()):
            return None
        self._authenticate(secret.proof("to node", node, nonces), secret.proof("to head", node, nonces))
        return node

    def send(self, message: Message) -> None:
        """Queue a message without waiting; one to a lost connection is dropped."""
        if not self.writer.is_closing():
            payload = json.dumps(message).encode()
            self.writer.write(LENGTH.pack(len(payload)) + self._sending.next(payload) + payload)

    async def receive(self) -> Message | None:
        """The next message; None when the other end is lost."""
        try:
            while True:
                async with asyncio.timeout(LOST_SECONDS):
                    message = await self._receive_any()
                if message:  # an empty one is a heartbeat
                    return message
        except BROKEN:
            return None

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

    def _authenticate(self, sending: str, receiving: str) -> None:
        self._sending, self._receiving = _Seal(bytes.fromhex(sending)), _Seal(bytes.fromhex(receiving))
        self._longest = LONGEST_MESSAGE

    async def _receive_any(self) -> Message:
        """The next message, a heartbeat too.

        Raises:
            one of BROKEN: it is too long, nobody who knows the token sent it, or it is no JSON object.
        """
        (length,) = LENGTH.unpack(await self.reader.readexactly(LENGTH.size))
        if length > self._longest:
            raise ValueError(f"a message of {length} bytes")
        seal = await self.reader.readexactly(self._receiving.size)
        payload = await self.reader.readexactly(length)
        if not hmac.compare_digest(seal, self._receiving.next(payload)):
            raise ValueError("a message that the other end did not send")
        message = json.loads(payload)
        if not isinstance(message, dict):
            raise TypeError("no JSON object")
        return message


class _Seal:
    """The HMACs of the messages in one direction, which count them: none can be left out or sent twice."""

    def __init__(self, key: bytes, size: int = 32) -> None:
        self.key, self.size, self.count = key, size, 0

    def next(self, payload: bytes) -> bytes:
        self.count += 1
        return hmac.digest(self.key, self.count.to_bytes(8, "big") + payload, "sha256")[: self.size]


Event = tuple[int, Message]
"""(node, its message)."""

LOST = "lost"


class CoordinatorServer:
    """The coordinator's end of all connections. A client that does not know the token is disconnected."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self.nodes: dict[int, Connection] = {}
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._end_message: Message | None = None
        self._departed: set[int] = set()
        self._heartbeats: set[asyncio.Task[None]] = set()
        self._hellos: defaultdict[str, list[asyncio.StreamWriter]] = defaultdict(list)

    async def listen(self, ports: range, host: str | None = None) -> int:
        """Listen on the first free port of `ports`, and return it.

        Args:
            host: the address to listen on; by default all addresses of this node.

        Raises:
            LaunchError: all ports are taken.
        """
        for port in free_ports(ports):
            try:
                self.server = await asyncio.start_server(self._accept, host, port, limit=HELLO_BYTES)
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
        node = await self._proven_node(connection)
        if node is None or node in self.nodes:
            writer.transport.abort()
            return
        connection.send({"welcome": True})
        self.nodes[node] = connection
        if self._end_message is not None:
            self._departed.add(node)
            connection.send(self._end_message)
        heartbeat = asyncio.create_task(connection.send_heartbeats())
        self._heartbeats.add(heartbeat)
        async for message in connection.messages():
            self.events.put_nowait((node, message))
        heartbeat.cancel()
        if node not in self._departed:
            self._departed.add(node)
            self.events.put_nowait((node, {"event": LOST}))

    async def _proven_node(self, connection: Connection) -> int | None:
        """The node that the client has proved to be; None if it has not, or not in time."""
        peer = str(connection.writer.get_extra_info("peername", ("",))[0])
        waiting = self._hellos[peer]
        waiting.append(connection.writer)
        if len(waiting) > HELLOS_PER_PEER:
            waiting.pop(0).transport.abort()
        elif sum(map(len, self._hellos.values())) > HELLOS:
            next(filter(None, self._hellos.values())).pop(0).transport.abort()
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                return await connection.prove_head(self.secret)
        except BROKEN:
            return None
        finally:
            with contextlib.suppress(ValueError):  # closed already, for a later one
                waiting.remove(connection.writer)
            if not waiting:
                self._hellos.pop(peer, None)
