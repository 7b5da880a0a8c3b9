"""Uploads through huggingface_hub itself, to a Hub on this machine."""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from grpo_dist.errors import PushError
from grpo_dist.export.push import check_token, push

TOKEN = "hf_never_to_be_shown"


class Hub(ThreadingHTTPServer):
    """Takes one commit per request and keeps its files; `refuse` is an HTTP status for the commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuse = 0


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(404, {"error": "not there"})

    def do_POST(self) -> None:
        hub: Hub = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer(200, {"url": f"{hub.url}/me/mine"})
        elif "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        elif "/commit/" in self.path and hub.refuse:
            self._answer(hub.refuse, {"error": "no"})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            hub.files |= {file["path"]: base64.b64decode(file["content"]) for file in files}
            self._answer(200, {"commitUrl": f"{hub.url}/me/mine/commit/abc", "commitOid": "abc", "hookOutput": ""})
        else:
            self._answer(200, {"errors": [], "warnings": []})

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    from huggingface_hub import constants

    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "merged"
    path.mkdir()
    for name in ("README.md", "model.safetensors", "export.json"):
        (path / name).write_text(f"---\ntags: [grpo]\n---\n{name}")
    return path


def test_an_export_is_one_commit_to_a_private_repository(hub, folder):
    assert push(folder, "me/mine") == f"{hub.url}/me/mine/commit/abc"
    assert hub.files == {name: (folder / name).read_bytes() for name in ("README.md", "model.safetensors")}
    assert [(made["name"], made["organization"], made["visibility"]) for made in hub.created] == [
        ("mine", "me", "private")
    ]
    assert f"Bearer {TOKEN}" in hub.tokens


@pytest.mark.parametrize(("status", "hint"), [(403, "export HF_TOKEN="), (400, "pushes it again")])
def test_a_hub_that_refuses_is_told_without_the_token(hub, folder, status, hint):
    hub.refuse = status
    with pytest.raises(PushError, match="the Hub refuses") as caught:
        push(folder, "me/mine")
    assert hint in caught.value.hint
    assert TOKEN not in str(caught.value)
    assert hub.files == {}


def test_a_hub_that_is_not_there_and_a_name_that_is_none(hub, folder, monkeypatch):
    with pytest.raises(PushError, match="a repository reads owner/name"):
        push(folder, "not a name")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="cannot be reached"):
        push(folder, "me/mine")


def test_without_a_token_nothing_is_begun(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PushError, match="no Hugging Face token") as caught:
        check_token()
    assert "HF_TOKEN" in caught.value.hint
