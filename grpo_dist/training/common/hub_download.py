"""Download Hub files into its cache, resuming where an earlier attempt was cut off.

`huggingface_hub` (1.33) starts a file from the beginning in each process; a shard of several gigabytes over an
unreliable connection would never finish. Here the bytes are fetched first; the library then finds the blob in place and
builds the rest of its cache entry.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from filelock import FileLock
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from grpo_dist.errors import DataError

CHUNK = 2**20
ATTEMPTS = 5
"""Consecutive failures without a single byte received in between."""
STALL_SECONDS = 30.0
SHA256 = re.compile(r"[0-9a-f]{64}")

Arrived = Callable[[int], None]
"""Called with the number of bytes of the file present so far."""


@dataclass(frozen=True)
class HubFile:
    kind: Literal["model", "dataset"]
    repo: str
    revision: str
    path: str
    size: int
    """Bytes."""


def download(file: HubFile, arrived: Arrived) -> Path:
    """Path of the complete file in the cache.

    Raises:
        httpx.HTTPError, OSError: the Hub refuses it, or the connection keeps breaking; bytes already received are kept.
        DataError: the content does not match what the Hub announced.
    """
    url = hf_hub_url(file.repo, file.path, repo_type=file.kind, revision=file.revision)
    meta = get_hf_file_metadata(url)
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=file.repo, repo_type=file.kind) / "blobs"
    blob = folder / meta.etag
    if not blob.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{meta.etag}.part"
        with FileLock(folder / f".{meta.etag}.lock"):
            if not blob.exists():
                _fetch(url, part, meta.size, arrived)
                _check(part, meta.etag, file)
                os.replace(part, blob)
    arrived(file.size)
    return Path(hf_hub_download(file.repo, file.path, repo_type=file.kind, revision=file.revision))


def _fetch(url: str, part: Path, size: int | None, arrived: Arrived) -> None:
    failures = 0
    while True:
        before = _size(part)
        if size is not None and before == size:
            return
        try:
            _stream(url, part, before if size is None or before < size else 0, arrived)
            return
        except httpx.TransportError:
            failures = 1 if _size(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise
            time.sleep(2.0 ** (failures - 1) / 2)


def _stream(url: str, part: Path, start: int, arrived: Arrived) -> None:
    """Append what follows the first `start` bytes; the whole file if the server does not support ranges."""
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session = get_session()
    with session.stream("GET", url, headers=headers, timeout=STALL_SECONDS, follow_redirects=True) as response:
        hf_raise_for_status(response)
        there = start if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
        with open(part, "ab") as out:
            out.truncate(there)
            for chunk in response.iter_bytes():
                out.write(chunk)
                out.flush()
                there += len(chunk)
                arrived(there)


def _check(part: Path, etag: str, file: HubFile) -> None:
    """The Hub names large files by their SHA-256."""
    if not SHA256.fullmatch(etag):
        return
    digest = hashlib.sha256()
    with open(part, "rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != etag:
        part.unlink()
        raise DataError(f"{file.repo}: {file.path} arrived damaged", hint="the same command fetches it again")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
