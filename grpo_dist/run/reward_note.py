"""Which reward function is running, recorded in a file: a function may crash its process, or never return."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "reward-"
SIZE = 4096


class RewardNote:
    """The file of one process in the log directory of an attempt, overwritten in place: no step waits for a disk."""

    def __init__(self, attempt: Path, rank: int) -> None:
        self.file = os.open(attempt / f"{PREFIX}{rank}", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.running: list[str] = []

    def enter(self, what: str) -> None:
        """A function starts; async functions run concurrently."""
        self.running.append(f"{time.time():.0f} {what}")
        self._write()

    def leave(self) -> None:
        """The function that started last, or one that runs concurrently with it, has returned."""
        self.running.pop()
        self._write()

    def _write(self) -> None:
        text = "\n".join(self.running[-1:]).encode()[: SIZE - 1]
        os.pwrite(self.file, text.ljust(SIZE, b"\0"), 0)


def running_rewards(attempt: Path) -> str:
    """The running functions of all processes, as `reward 'mine.py:f' at step 3, since 12:00:00`; empty if none runs."""
    return "; ".join(dict.fromkeys(_notes(attempt)))


def _notes(attempt: Path) -> Iterator[str]:
    for path in sorted(attempt.glob(f"{PREFIX}[0-9]*")):
        try:
            text = path.read_bytes().rstrip(b"\0").decode(errors="replace")
        except OSError:
            continue
        since, _, what = text.partition(" ")
        if what and since.isdigit():
            yield f"{what}, since {time.strftime('%H:%M:%S', time.localtime(int(since)))}"
