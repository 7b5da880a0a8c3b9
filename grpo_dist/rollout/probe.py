"""Short questions to one rollout server, each with an end."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

from grpo_dist.rollout.command import LOGPROBS_MODE, ServerSettings
from grpo_dist.rollout.frames import FrameDecoder

VLLM_VERSIONS = ((0, 22), (0, 31))
"""Oldest and newest vLLM whose inner parts the endpoint knows."""
UNREACHED = (OSError, http.client.HTTPException, ValueError)
"""What a question ends with when nobody answers, or not in time, or not as one of our servers would."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key it asks for."""

    host: str
    port: int
    key: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def healthy(address: Address, timeout: float) -> bool:
    """`GET /health` answers 200.

    Raises:
        OSError, HTTPException: nobody answers.
    """
    return _ask(address, "GET", "/health", timeout)[0] == 200


def status(address: Address, timeout: float) -> dict[str, Any]:
    """What the server says of itself.

    Raises:
        OSError, HTTPException, ValueError: it does not.
    """
    code, body = _ask(address, "GET", "/grpo-dist/status", timeout)
    if code != 200:
        raise ValueError(f"/grpo-dist/status answers {code}: {body[:200].decode(errors='replace')}")
    return json.loads(body)


def warm_up(address: Address, timeout: float) -> None:
    """One short completion: what the first request pays for is paid before there is a batch.

    Raises:
        OSError, HTTPException, ValueError: there is none.
    """
    request = {"prompt_token_ids": [1], "n": 1, "seed": 0, "sampling": {"max_tokens": 2}}
    code, body = _ask(address, "POST", "/grpo-dist/generate", timeout, json.dumps(request))
    if code != 200:
        raise ValueError(f"/grpo-dist/generate answers {code}: {body[:200].decode(errors='replace')}")
    if not any(frame.finish for frame in FrameDecoder().feed(body)):
        raise ValueError("a completion of two tokens did not end")


def mismatch(settings: ServerSettings, found: dict[str, Any]) -> str | None:
    """What of the server is not as planned, in words; None when all is."""
    version = tuple(int(part) for part in found["vllm_version"].split("+")[0].split(".")[:2])
    oldest, newest = (".".join(map(str, limit)) for limit in VLLM_VERSIONS)
    wanted = {
        "model": (settings.model, found["model"]),
        "dtype": (settings.dtype, found["dtype"]),
        "logprobs_mode": (LOGPROBS_MODE, found["logprobs_mode"]),
    }
    if not VLLM_VERSIONS[0] <= version <= VLLM_VERSIONS[1]:
        return f"it is vLLM {found['vllm_version']}; supported are {oldest} to {newest}"
    for name, (planned, served) in wanted.items():
        if planned != served:
            return f"it serves {name} {served!r}, planned is {planned!r}"
    if found["max_lora_rank"] < settings.max_lora_rank:
        return f"it serves adapters up to rank {found['max_lora_rank']}, needed is {settings.max_lora_rank}"
    return None


def _ask(address: Address, method: str, path: str, timeout: float, body: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {address.key}"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
