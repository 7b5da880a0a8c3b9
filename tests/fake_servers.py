"""Rollout servers of a few milliseconds, in threads of the test; their tokens follow from prompt and seed alone."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

from aiohttp import web

from grpo_dist.inference.activity import EngineActivity
from grpo_dist.inference.registry import ReplicaEntry, make_key, write_replica
from grpo_dist.inference.wire_format import LENGTH, RUNNING, encode


def tokens(prompt: list[int], seed: int, count: int) -> list[int]:
    return [(sum(prompt) + 7 * seed + place) % 97 for place in range(count)]


class FakeServer:
    """One server; what a test wants to go wrong is set on it."""

    def __init__(self, registry: Path, name: str, key: str) -> None:
        self.registry, self.name, self.key = registry, name, key
        self.adapters: set[str] = set()
        self.pushed: dict[str, bytes] = {}
        self.events: list[tuple[str, str | None]] = []
        """(push, load or generate; file or adapter) of every request granted, in order."""
        self.generated: list[tuple[str | None, int, int]] = []
        """(adapter, seed, n) of every request answered to its end."""
        self.break_off = 0
        """So many requests end in the middle of the answer."""
        self.silent = threading.Event()
        """Set: neither requests nor status are answered, as of a frozen process."""
        self.stalled = 0.0
        self.refuse: str | None = None
        self.refuse_adapters: tuple[int, str] | None = None
        """Status and words of the answer to every adapter."""
        self.pause = 0.002
        """Seconds before each completion ends."""
        self.incarnation = self.loads = self.most_in_flight = self.most_adapters = 0
        self.work = EngineActivity()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()
        self.register("ready")

    def register(self, state: str) -> None:
        url = f"http://127.0.0.1:{self.port}"
        write_replica(self.registry, ReplicaEntry(self.name, url, "127.0.0.1", 1, self.incarnation, state, "log"))

    def restart(self) -> None:
        """What it had loaded is gone; the next request finds it serving again."""
        self.adapters.clear()
        self.pushed.clear()
        self.events.clear()
        self.incarnation, self.work = self.incarnation + 1, EngineActivity()
        self.register("ready")

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application(middlewares=[self._guard], client_max_size=10**9)
        app.router.add_get("/grpo-dist/status", self._status)
        app.router.add_post("/grpo-dist/generate", self._generate)
        app.router.add_post("/grpo-dist/adapters/{name}", self._load)
        app.router.add_put("/grpo-dist/adapters/{name}/{file}", self._push)
        app.router.add_delete("/grpo-dist/adapters/{name}", self._unload)
        runner = web.AppRunner(app, shutdown_timeout=0)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        started.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())

    @web.middleware
    async def _guard(self, request: web.Request, handler) -> web.StreamResponse:
        while self.silent.is_set():
            await asyncio.sleep(0.01)
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "wrong key"}, status=401)
        return await handler(request)

    async def _status(self, request: web.Request) -> web.Response:
        status = {"incarnation": self.incarnation, "busy_seconds": self.work.busy_seconds}
        return web.json_response({**status, "stalled_seconds": self.stalled, "adapters": [*self.adapters]})

    async def _load(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.match_info["name"]
        self.loads += 1
        if self.refuse_adapters:
            status, reason = self.refuse_adapters
            return web.json_response({"error": reason}, status=status)
        if body["path"] is None and not any(key.startswith(name) for key in self.pushed):
            return web.json_response({"error": "nothing was pushed"}, status=404)
        self.adapters.add(name)
        self.most_adapters = max(self.most_adapters, len(self.adapters))
        self.events.append(("load", name))
        return web.json_response({"path": "x"})

    async def _push(self, request: web.Request) -> web.Response:
        from hashlib import sha256

        data = await request.read()
        if sha256(data).hexdigest() != request.headers["X-Sha256"]:
            return web.json_response({"error": "wrong digest"}, status=422)
        file = f"{request.match_info['name']}/{request.match_info['file']}"
        self.pushed[file] = data
        self.events.append(("push", file))
        return web.json_response({"path": "x"})

    async def _unload(self, request: web.Request) -> web.Response:
        self.adapters.discard(request.match_info["name"])
        return web.json_response({})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        adapter, n, seed = body["adapter"], body["n"], body["seed"]
        if self.refuse:
            return web.json_response({"error": self.refuse}, status=400)
        if adapter is not None and adapter not in self.adapters:
            return web.json_response({"error": f"no adapter {adapter}"}, status=404)
        self.events.append(("generate", adapter))
        with self.work.request():
            self.most_in_flight = max(self.most_in_flight, self.work.in_flight)
            return await self._stream(request, body, n, seed)

    async def _stream(self, request: web.Request, body: dict, n: int, seed: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        count = body["sampling"]["max_tokens"]
        for index in range(n):
            ids = tokens(body["prompt_token_ids"], seed + index, count)
            await response.write(encode(index, ids[:1], [-0.5], RUNNING))
            while self.silent.is_set():
                await asyncio.sleep(0.01)
            if self.break_off:
                self.break_off -= 1
                request.transport.close()
                return response
            await asyncio.sleep(self.pause)
            await response.write(encode(index, ids[1:], [-0.25] * (count - 1), LENGTH))
        self.generated.append((body["adapter"], seed, n))  # before whoever asked can look
        await response.write_eof()
        return response


def start(registry: Path, count: int) -> list[FakeServer]:
    registry.mkdir(exist_ok=True)
    key = make_key(registry)
    return [FakeServer(registry, str(number), key) for number in range(count)]
