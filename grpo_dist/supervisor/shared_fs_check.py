"""Check that the coordinator and a node see the same run directory and can both write there: one file each way."""

from __future__ import annotations

import time
from pathlib import Path

from grpo_dist.run.directory import write_atomically

LAG_SECONDS = 30.0
"""How late a file may appear on another node: network file systems cache directory listings."""
POLL_SECONDS = 0.2


def ask(attempt: Path, nonce: str) -> None:
    """Write the coordinator's file."""
    write_atomically(attempt / ".head", nonce)


def answer(attempt: Path, node: int, nonce: str) -> str | None:
    """On a node: read the coordinator's file and write the node's own. Returns what failed, or None."""
    if not _appears(attempt / ".head", nonce):
        return f"{attempt / '.head'} did not appear within {LAG_SECONDS:.0f} s; is the run directory shared?"
    try:
        write_atomically(attempt / f".node{node}", nonce)
    except OSError as error:
        return f"{attempt} cannot be written: {error.strerror}"
    return None


def check(attempt: Path, node: int, nonce: str) -> str | None:
    """On the coordinator: read and remove the node's file. Returns what failed, or None."""
    answered = attempt / f".node{node}"
    if not _appears(answered, nonce):
        return f"what it wrote to {answered} cannot be seen on the head; is the run directory shared?"
    answered.unlink(missing_ok=True)
    return None


def clean(attempt: Path) -> None:
    """Remove the coordinator's file."""
    (attempt / ".head").unlink(missing_ok=True)


def _appears(file: Path, nonce: str) -> bool:
    until = time.monotonic() + LAG_SECONDS
    while True:
        try:
            if file.read_text(encoding="utf-8") == nonce:
                return True
        except OSError:
            pass
        if time.monotonic() > until:
            return False
        time.sleep(POLL_SECONDS)
