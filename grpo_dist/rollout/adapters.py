"""Adapters pushed to a rollout server: their files on its own disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from grpo_dist.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


class Refused(Exception):
    """A request that is not done; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AdapterStore:
    """Directories of adapters, each under its name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, name: str) -> Path:
        """Where the adapter lies or would.

        Raises:
            Refused: that is no name.
        """
        if not NAME.fullmatch(name):
            raise Refused(400, f"{name!r} is no name of an adapter: letters, digits, '.', '_' and '-', no dot in front")
        return self.root / name

    async def write(self, name: str, file: str, digest: str, chunks: AsyncIterator[bytes]) -> Path:
        """Put one file of an adapter in place, whole or not at all; return the adapter's directory.

        Args:
            digest: SHA-256 of the file, hexadecimal.

        Raises:
            Refused: the name is not one of the two, the bytes have another digest, or the disk does not take them.
        """
        directory = self.directory(name)
        if file not in FILES:
            raise Refused(400, f"{file!r} is no file of an adapter; those are {' and '.join(FILES)}")
        draft = directory / f".{file}.{uuid.uuid4().hex[:8]}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            found = await _save(draft, chunks)
            if found != digest:
                raise Refused(422, f"{file}: its SHA-256 is {found}, X-Sha256 says {digest or 'nothing'}")
            os.replace(draft, directory / file)
        except OSError as error:
            status = 507 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 500
            raise Refused(status, f"{directory}: {file} cannot be written ({error.strerror})") from error
        finally:
            draft.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()  # only when nothing is in it
        return directory

    async def remove(self, name: str) -> None:
        """Remove what was pushed of an adapter, if anything was."""
        await asyncio.to_thread(shutil.rmtree, self.directory(name), ignore_errors=True)


async def _save(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write the chunks to the disk itself; return their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "xb") as handle:
        async for chunk in chunks:
            digest.update(chunk)
            handle.write(chunk)
        handle.flush()
        await asyncio.to_thread(os.fsync, handle.fileno())
    return digest.hexdigest()
