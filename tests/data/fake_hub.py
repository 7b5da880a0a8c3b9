"""A Hub that serves folders (`root/owner/name/…`) over HTTP, with the answers of the real one to what is not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

COMMIT = "a" * 40
GATED = "gated"
"""A data set of this name exists, and its files are refused."""


@contextmanager
def fake_hub(
    root: Path, *, stuck: dict[str, Event] | None = None, served: list[tuple[str, int]] | None = None
) -> Iterator[str]:
    """Address of the running Hub.

    Of a file named in `stuck` (`owner/name/path`) only the first half comes until its event is set; `served` is given
    (file, first byte) for each answer with content.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.root, server.daemon_threads = root, True
    server.stuck, server.served = stuck or {}, [] if served is None else served
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        kind, *rest = self._parts()
        if kind == "api" and len(rest) > 2:
            self._describe(*rest[1:])
        elif kind == "datasets" and "resolve" in rest:
            self._file(*rest)
        elif rest[1:2] == ["resolve"]:
            self._file(kind, *rest)
        else:
            self._send(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """`paths-info`: what is known about some paths."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        repository = self.server.root.joinpath(*self._parts()[2:4])
        self._json([_entry(repository, repository / path) for path in paths if (repository / path).exists()])

    def _parts(self) -> list[str]:
        return unquote(urlparse(self.path).path).strip("/").split("/")

    def _describe(self, owner: str, name: str, *rest: str) -> None:
        repository = self.server.root / owner / name
        if name != GATED and not repository.is_dir():
            self._send(404, error="RepoNotFound")
        elif rest[:1] == ("revision",) and rest[1] not in ("main", COMMIT):
            self._send(404, error="RevisionNotFound")
        elif rest[:1] == ("tree",):
            self._tree(repository, repository.joinpath(*rest[2:]))
        else:
            self._json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": _siblings(repository)})

    def _tree(self, repository: Path, folder: Path) -> None:
        if not folder.is_dir():
            return self._send(404, error="EntryNotFound")
        paths = folder.rglob("*") if "recursive=true" in self.path.lower() else folder.iterdir()
        return self._json([_entry(repository, path) for path in sorted(paths)])

    def _file(self, owner: str, name: str, _resolve: str, _revision: str, *path: str) -> None:
        file = self.server.root.joinpath(owner, name, *path)
        if name == GATED:
            self._send(403, error="GatedRepo")
        elif not file.is_file():
            self._send(404, error="EntryNotFound")
        else:
            self._send(200, file.read_bytes(), file=str(Path(owner, name, *path)))

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, body: bytes = b"", error: str | None = None, file: str | None = None) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-")) if file else 0
        self.send_response(206 if start else status)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            if file:
                self.server.served.append((file, start))
            self._body(body[start:], file)

    def _body(self, body: bytes, file: str | None) -> None:
        """The whole of it; of a file in `stuck` the first half, and then nothing until its event is set."""
        event = self.server.stuck.get(file)
        if event is not None and not event.is_set():
            half = len(body) // 2
            self.wfile.write(body[:half])
            self.wfile.flush()
            event.wait()
            body = body[half:]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)


def _siblings(repository: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in repository.rglob("*") if path.is_file())
    return [{"rfilename": str(path.relative_to(repository)), "size": path.stat().st_size} for path in files]


def _entry(repository: Path, path: Path) -> dict[str, Any]:
    size = path.stat().st_size if path.is_file() else 0
    kind = "directory" if path.is_dir() else "file"
    return {"path": str(path.relative_to(repository)), "type": kind, "oid": "0" * 40, "size": size}
