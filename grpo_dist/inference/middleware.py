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
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from grpo_dist.inference.adapters import AdapterRefused, AdapterStore
from grpo_dist.inference.engine import Engine
from grpo_dist.inference.server import ADAPTERS_VARIABLE, INCARNATION_VARIABLE, KEY_VARIABLE

PREFIX = ["", "grpo-dist"]
LONGEST_JSON = 16 * 2**20
"""Bytes; a prompt of a million tokens takes 8."""
NO_KEY = "this server asks for its run's key: Authorization: Bearer KEY"


class RolloutMiddleware:
    """ASGI middleware around vLLM's application.

    vLLM 0.31 imports the class that `--middleware` names and passes it to `add_middleware`; the application is
    `scope["app"]`, with the engine in its `state`. If either changes, no server becomes ready.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.authorization = f"Bearer {os.environ[KEY_VARIABLE]}".encode()
        self.store = AdapterStore(Path(os.environ[ADAPTERS_VARIABLE]))
        self.incarnation = int(os.environ.get(INCARNATION_VARIABLE, "0"))
        self.engine: Engine | None = None
        self.routes = Starlette(
            routes=[
                Route("/grpo-dist/status", self._status),
                Route("/grpo-dist/adapters/{name}/{file}", self._write, methods=["PUT"]),
                Route("/grpo-dist/adapters/{name}", self._load, methods=["POST"]),
                Route("/grpo-dist/adapters/{name}", self._unload, methods=["DELETE"]),
                Route("/grpo-dist/generate", self._generate, methods=["POST"]),
            ],
            exception_handlers={AdapterRefused: _refused, HTTPException: _no_route},
        )
        self.routes.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_health(scope):
            return await self.app(scope, receive, send)
        if not self._has_key(scope):
            return await _unauthorized(scope)(scope, receive, send)
        if scope["type"] != "http" or scope["path"].split("/")[:2] != PREFIX:
            return await self.app(scope, receive, send)
        if self.engine is None:
            self.engine = Engine(scope["app"].state, self.incarnation)
        await self.routes({**scope}, receive, send)  # a copy: Starlette puts itself into scope["app"]

    def _has_key(self, scope: Scope) -> bool:
        given = Headers(scope=scope).getlist("authorization")
        return len(given) == 1 and hmac.compare_digest(given[0].encode("latin-1"), self.authorization)

    async def _status(self, _request: Request) -> Response:
        return JSONResponse(self.engine.status())

    async def _write(self, request: Request) -> Response:
        chunks = _chunks(request, self.engine.largest_adapter)
        digest = request.headers.get("x-sha256", "")
        return JSONResponse({"path": str(await self.store.write(**request.path_params, digest=digest, chunks=chunks))})

    async def _load(self, request: Request) -> Response:
        name, body = request.path_params["name"], await _json(request)
        where = str(self.store.directory(name)) if body.get("path") is None else str(body["path"])
        await self.engine.load(name, where, float(body.get("wait_seconds", 0.0)))
        return JSONResponse({"path": where})

    async def _unload(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self.engine.unload(name)
        await self.store.remove(name)
        return JSONResponse({})

    async def _generate(self, request: Request) -> Response:
        body = await _json(request)
        if "prompt_token_ids" not in body:
            raise AdapterRefused(400, "prompt_token_ids is missing")
        frames = self.engine.generate(
            body.get("adapter"),
            body["prompt_token_ids"],
            n=int(body.get("n", 1)),
            seed=body.get("seed"),
            sampling=dict(body.get("sampling", {})),
        )
        return _Frames(frames, media_type="application/octet-stream")


class _Frames(StreamingResponse):
    """Starlette's, but it begins with the first frame, so that a refusal before it is an error in words, and generation
    is cancelled as soon as the client disconnects. A failure later breaks the connection in the middle of the answer.
    """

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await _while_connected(self.stream_response(send), receive)

    async def stream_response(self, send: Send) -> None:
        started = False
        try:
            async for data in self.body_iterator:
                if not started:
                    start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                    await send(start)
                    started = True
                await send({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            await self.body_iterator.aclose()
        await send({"type": "http.response.body", "body": b""})


async def _while_connected(work: Awaitable[None], receive: Receive) -> None:
    """Do the work, which is cancelled, in the engine too, when the client disconnects."""
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for one in (task, disconnected):
            one.cancel()
        await asyncio.gather(task, disconnected, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_health(scope: Scope) -> bool:
    return scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", "/health")


def _unauthorized(scope: Scope) -> ASGIApp:
    if scope["type"] == "websocket":
        return WebSocketClose(code=1008, reason=NO_KEY)
    return JSONResponse({"error": NO_KEY}, 401)


async def _refused(_request: Request, refused: AdapterRefused) -> Response:
    return JSONResponse({"error": str(refused)}, refused.status)


async def _no_route(request: Request, _error: HTTPException) -> Response:
    return JSONResponse({"error": f"no such route: {request.method} {request.url.path}"}, 404)


async def _chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body of a request in pieces, at most `limit` bytes together.

    Raises:
        AdapterRefused: the client disconnected before the end, or the body is longer.
    """
    left = limit
    try:
        async for chunk in request.stream():
            if (left := left - len(chunk)) < 0:
                raise AdapterRefused(413, f"the request is longer than {limit:,} bytes, the most that is taken here")
            yield chunk
    except ClientDisconnect:
        raise AdapterRefused(400, "the request ended before its body did") from None


async def _json(request: Request) -> dict[str, Any]:
    text = b"".join([chunk async for chunk in _chunks(request, LONGEST_JSON)])
    try:
        body = json.loads(text)
    except ValueError as error:
        raise AdapterRefused(400, f"the request is no JSON: {error}") from error
    except RecursionError:
        raise AdapterRefused(400, "the request is nested too deeply") from None
    if not isinstance(body, dict):
        raise AdapterRefused(400, "the request is no JSON object")
    return body
