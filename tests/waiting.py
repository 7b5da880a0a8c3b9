"""Waiting for what a test has set going."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found],
    seconds: float = 30.0,
    why: Callable[[], str] = lambda: "waited in vain",
    pause: float = 0.02,
) -> Found:
    """What the condition gives once that is true; the test fails with the words of `why` when it takes too long."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, why()
        time.sleep(pause)
    return found


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
