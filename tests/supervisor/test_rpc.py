"""Who the coordinator and the agents of a job listen to: real sockets, with strangers among them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from grpo_dist.errors import LaunchError
from grpo_dist.procs.ports import ports_of
from grpo_dist.supervisor import agent, rpc
from grpo_dist.supervisor.agent import announced, connect, head_places
from grpo_dist.supervisor.rpc import LENGTH, LOST, Connection, CoordinatorServer, Secret

SECRET = Secret("token", "77", "attempt-2")


def scene(play) -> None:
    """Run `play(server, port)` with a coordinator that listens."""

    async def run() -> None:
        server = CoordinatorServer(SECRET)
        port = await server.listen(ports_of("77"), "127.0.0.1")
        await asyncio.wait_for(play(server, port), 30)
        await server.close()

    asyncio.run(run())


def meet(port: int, secret: Secret = SECRET, node: int = 1, limit: float = 5):
    return connect(lambda: [("127.0.0.1", port)], secret, node, limit)


def frame(message: object) -> bytes:
    payload = json.dumps(message).encode()
    return LENGTH.pack(len(payload)) + payload


def test_messages_go_both_ways_and_a_loss_is_noticed():
    async def play(server: CoordinatorServer, port: int) -> None:
        node = await meet(port)
        node.send({"event": "hello", "facts": {"long": "x" * 200_000}})
        assert (await server.events.get())[1]["event"] == "hello"
        for task in ("prepare", "train"):
            server.send({"start": task})
            assert await node.receive() == {"start": task}
        await node.close()
        assert await asyncio.wait_for(server.events.get(), 5) == (1, {"event": LOST})

    scene(play)


@pytest.mark.parametrize(
    "secret",
    [Secret("guess", "77", "attempt-2"), Secret("token", "78", "attempt-2"), Secret("token", "77", "attempt-1")],
)
def test_only_who_knows_the_token_of_this_attempt_is_heard(secret):
    async def play(server: CoordinatorServer, port: int) -> None:
        with pytest.raises(LaunchError, match="no answer from the head"):
            await meet(port, secret, limit=0.5)
        assert server.nodes == {}

    scene(play)


def test_a_node_number_is_given_once():
    async def play(server: CoordinatorServer, port: int) -> None:
        await meet(port)
        with pytest.raises(LaunchError, match="no answer"):
            await meet(port, limit=0.5)

    scene(play)


def test_another_job_s_head_on_our_port_is_passed_over():
    async def play(server: CoordinatorServer, port: int) -> None:
        theirs = CoordinatorServer(Secret("theirs", "77", "attempt-2"))
        other = await theirs.listen(ports_of("77"), "127.0.0.1")
        assert other > port
        node = await connect(lambda: [("127.0.0.1", other), ("127.0.0.1", port)], SECRET, 1, 5)
        await node.close()
        assert (await server.events.get())[0] == 1
        await theirs.close()

    scene(play)


def test_whoever_listens_first_learns_no_secret_and_is_not_obeyed():
    heard = []

    async def impostor(reader, writer) -> None:
        heard.append(await reader.read(4096))
        writer.write(bytes(32).join(map(frame, [{"nonce": "n", "proof": "p"}, {"welcome": True}, {"bye": 0}])))
        heard.append(await reader.read(4096))
        writer.close()

    async def play(_server: CoordinatorServer, _port: int) -> None:
        async with await asyncio.start_server(impostor, "127.0.0.1", 0) as listening:
            with pytest.raises(LaunchError):
                await meet(listening.sockets[0].getsockname()[1], limit=0.5)
        assert b"token" not in b"".join(heard)
        assert set(json.loads(heard[0][LENGTH.size :])) == {"node", "nonce"}

    scene(play)


def test_who_sits_between_the_two_can_add_nothing_and_repeat_nothing():
    async def play(server: CoordinatorServer, port: int) -> None:
        for forged in (lambda last: bytes(32).join([frame({"bye": 0})[:4], frame({"bye": 0})[4:]]), lambda last: last):
            relayed: list[bytes] = []
            ends: list[asyncio.StreamWriter] = []

            async def relay(reader, writer, relayed=relayed, ends=ends) -> None:
                ends.append(writer)
                head_reader, head_writer = await asyncio.open_connection("127.0.0.1", port)

                async def forward() -> None:
                    while data := await reader.read(4096):
                        head_writer.write(data)
                    head_writer.close()

                there = asyncio.create_task(forward())
                while data := await head_reader.read(4096):
                    relayed.append(data)
                    writer.write(data)
                await there
                writer.close()  # since Python 3.12 the end of a server waits for that

            async with await asyncio.start_server(relay, "127.0.0.1", 0) as between:
                node = await meet(between.sockets[0].getsockname()[1], node=len(server.nodes) + 1)
                server.send({"dump": True}, [len(server.nodes)])
                assert await node.receive() == {"dump": True}
                ends[0].write(forged(relayed[-1]))
                assert await node.receive() is None
                await node.close()

    scene(play)


NOISE = {
    "silent": b"",
    "no frame": b"GET / HTTP/1.1\r\n\r\n",
    "empty lines": b"\n" * 100_000,
    "deep": LENGTH.pack(1000) + b"[" * 1000,
    "no object": frame([1]),
    "odd": frame({"node": "1", "nonce": {}}),
    "boolean": frame({"node": True, "nonce": "n"}),
    "long": LENGTH.pack(1 << 31) + b"x" * 100_000,
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_a_flood_without_the_token_holds_nobody_up(monkeypatch, noise):
    monkeypatch.setattr(rpc, "HELLO_SECONDS", 0.5)
    over = threading.Event()

    def flood(port: int) -> None:
        held: list[socket.socket] = []
        while not over.is_set():
            try:
                held.append(socket.create_connection(("127.0.0.1", port), 1))
                held[-1].sendall(noise)
                time.sleep(0.001)
            except OSError:
                time.sleep(0.01)
            if len(held) > 200:
                held.pop(0).close()

    async def play(server: CoordinatorServer, port: int) -> None:
        thread = threading.Thread(target=flood, args=(port,), daemon=True)
        thread.start()
        await asyncio.sleep(0.2)
        node, longest = await meet(port), 0.0
        until = time.monotonic() + 0.6
        while (began := time.monotonic()) < until:
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)
            assert sum(map(len, server._hellos.values())) <= rpc.HELLOS_PER_PEER
        server.send({"start": "train"})
        assert await node.receive() == {"start": "train"}
        assert longest < 2
        over.set()

    scene(play)
    over.set()


def test_strangers_of_many_addresses_leave_room_for_the_nodes(monkeypatch):
    monkeypatch.setattr(rpc, "HELLOS", 20)

    async def play(server: CoordinatorServer, port: int) -> None:
        held = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.1.{number}", 0))
            for number in range(1, 60)
        ]
        node = await meet(port)
        assert sum(map(len, server._hellos.values())) <= rpc.HELLOS
        server.send({"start": "train"})
        assert await node.receive() == {"start": "train"}
        for _, writer in held:
            writer.close()

    scene(play)


def test_who_sends_a_byte_at_a_time_is_disconnected_in_time(monkeypatch):
    monkeypatch.setattr(rpc, "HELLO_SECONDS", 0.3)

    async def play(server: CoordinatorServer, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        began, message = time.monotonic(), frame({"node": 1, "nonce": "n" * 900})
        with pytest.raises(ConnectionError):
            for byte in message:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 5
        assert not server._hellos

    scene(play)


def test_who_never_proves_anything_is_disconnected(monkeypatch):
    monkeypatch.setattr(rpc, "HELLO_SECONDS", 0.1)

    async def play(server: CoordinatorServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LENGTH.pack(100))
        with pytest.raises(ConnectionError):
            assert await asyncio.wait_for(reader.read(1), 5) == b""
            raise ConnectionError
        assert not server._hellos

    scene(play)


def test_the_head_is_found_through_the_run_directory(tmp_path, monkeypatch):
    places = head_places(tmp_path, ["node7"], range(1, 3))
    assert places() == []
    with announced(tmp_path, 4711, ["node1"]):
        assert places() == [("node7", 4711), ("node1", 4711)]
    (tmp_path / "head.json").write_text('{"port": [')
    assert places() == []
    monkeypatch.setattr(agent, "LAG_SECONDS", -1.0)
    every = [("node7", 1), ("node7", 2)]
    assert head_places(tmp_path, ["node7"], range(1, 3))() == every
    assert head_places(Path("/nowhere"), ["node7"], range(1, 3))() == every


def test_a_head_that_cannot_write_its_address_goes_on():
    with announced(Path("/nowhere"), 1, []):
        pass


def test_a_message_to_a_lost_connection_is_dropped():
    async def play(server: CoordinatorServer, port: int) -> None:
        node = await meet(port)
        assert isinstance(node, Connection)
        await node.close()
        node.send({"event": "ready"})

    scene(play)
