"""The routes a rollout server adds to vLLM's own API, as middleware that plain `vllm serve` loads.

    vllm serve MODEL --middleware grpo_dist.inference.middleware.RolloutMiddleware

It runs inside vLLM's API server, with the engine of that process. Every path but `GET /health`, vLLM's own included,
needs `Authorization: Bearer KEY` with the KEY of the environment. Errors are JSON, `{"error": reason}`.

    GET    /grpo-dist/status                  model, versions, adapters and load; 503 when the engine is dead
    PUT    /grpo-dist/adapters/NAME/FILE      write a file of an adapter to the server's disk, verified by X-Sha256
    POST   /grpo-dist/adapters/NAME           load an adapter: the pushed one, or one in a directory this machine sees
    DELETE /grpo-dist/adapters/NAME           unload it and remove its pushed files; succeeds if there is none
    POST   /grpo-dist/generate                sample completions of a prompt; answers frames (`wire_format.py`)

Loading a name again from the same place does nothing: a name belongs to one content.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from grpo_dist.inference.adapters import AdapterRefused, AdapterStore
from grpo_dist.inference.engine import Engine
from grpo_dist.inference.server import ADAPTERS_VARIABLE, INCARNATION_VARIABLE, KEY_VARIABLE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PREFIX = ["", "grpo-dist"]
LONGEST_JSON = 16 * 2**20
"""Bytes; a prompt of a million tokens takes 8."""


class RolloutMiddleware:
    """ASGI middleware around vLLM's application.

    vLLM 0.31 imports the class that `--middleware` names and passes it to `add_middleware`; the application is
    `scope["app"]`, with the engine in its `state`. If either changes, no server becomes ready.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.authorization = f"Bearer {os.environ[KEY_VARIABLE]}".encode()
        self.store = AdapterStore(Path(os.environ[ADAPTERS_VARIABLE]))
        self.incarnation = int(os.environ.get(INCARNATION_VARIABLE, "0"))
        self.engine: Engine | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and _matches(scope, "GET", "/health")):
            return await self.app(scope, receive, send)
        if not self._has_key(scope):
            return await _send_error(scope, send, 401, "this server asks for its run's key: Authorization: Bearer KEY")
        if scope["type"] != "http" or scope["path"].split("/")[:2] != PREFIX:
            return await self.app(scope, receive, send)
        try:
            await self._answer(scope, receive, send)
        except AdapterRefused as refused:
            await _send_error(scope, send, refused.status, str(refused))
        except _ClientDisconnected:
            return

    def _has_key(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self.authorization)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.engine is None:
            self.engine = Engine(scope["app"].state, self.incarnation)
        match scope["method"], scope["path"].split("/")[2:]:
            case "GET", ["status"]:
                answer = self.engine.status()
            case "PUT", ["adapters", name, file]:
                digest = dict(scope["headers"]).get(b"x-sha256", b"").decode("ascii", "replace")
                chunks = _chunks(receive, self.engine.largest_adapter)
                answer = {"path": str(await self.store.write(name, file, digest, chunks))}
            case "POST", ["adapters", name]:
                body = await _json(receive)
                where = str(self.store.directory(name)) if body.get("path") is None else str(body["path"])
                await self.engine.load(name, where, float(body.get("wait_seconds", 0.0)))
                answer = {"path": where}
            case "DELETE", ["adapters", name]:
                await self.engine.unload(name)
                await self.store.remove(name)
                answer = {}
            case "POST", ["generate"]:
                return await self._generate(await _json(receive), receive, send)
            case method, _:
                raise AdapterRefused(404, f"no such route: {method} {scope['path']}")
        await _send_json(send, 200, answer)

    async def _generate(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        """Stream the frames. A failure after the first frame breaks the connection in the middle of the answer."""
        frames = self.engine.generate(
            body.get("adapter"),
            _field(body, "prompt_token_ids"),
            n=int(body.get("n", 1)),
            seed=body.get("seed"),
            sampling=dict(body.get("sampling", {})),
        )

        async def stream() -> None:
            started = False
            try:
                async for data in frames:
                    if not started:
                        await _send_start(send, 200, b"application/octet-stream")
                        started = True
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except AdapterRefused as refused:
                if not started:
                    raise
                raise RuntimeError(f"broken off: {refused}") from refused
            finally:
                await frames.aclose()
            await send({"type": "http.response.body", "body": b""})

        await _while_connected(stream(), receive)


class _ClientDisconnected(Exception):
    """The client has gone away."""


async def _while_connected(work: Awaitable[Any], receive: Receive) -> Any:
    """The result of the work, which is cancelled, in the engine too, when the client disconnects."""
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise _ClientDisconnected
    finally:
        for one in (task, disconnected):
            one.cancel()
        await asyncio.gather(task, disconnected, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _matches(scope: Scope, method: str, path: str) -> bool:
    return scope["method"] == method and scope["path"] == path


def _field(body: dict[str, Any], name: str) -> Any:
    if name not in body:
        raise AdapterRefused(400, f"{name} is missing")
    return body[name]


async def _chunks(receive: Receive, limit: int) -> Any:
    """The body of a request in pieces, at most `limit` bytes together.

    Raises:
        AdapterRefused: the client disconnected before the end, or the body is longer.
    """
    left = limit
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise AdapterRefused(400, "the request ended before its body did")
        chunk = message.get("body", b"")
        if (left := left - len(chunk)) < 0:
            raise AdapterRefused(413, f"the request is longer than {limit:,} bytes, the most that is taken here")
        yield chunk
        if not message.get("more_body"):
            return


async def _json(receive: Receive) -> dict[str, Any]:
    text = b"".join([chunk async for chunk in _chunks(receive, LONGEST_JSON)])
    try:
        body = json.loads(text)
    except ValueError as error:
        raise AdapterRefused(400, f"the request is no JSON: {error}") from error
    except RecursionError:
        raise AdapterRefused(400, "the request is nested too deeply") from None
    if not isinstance(body, dict):
        raise AdapterRefused(400, "the request is no JSON object")
    return body


async def _send_error(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008, "reason": reason})
    await _send_json(send, status, {"error": reason})


async def _send_json(send: Send, status: int, answer: dict[str, Any]) -> None:
    await _send_start(send, status, b"application/json")
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _send_start(send: Send, status: int, content_type: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
