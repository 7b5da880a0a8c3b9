"""When a training run has stalled: judged by its own step times; pure."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

FACTOR = 10.0
"""A step may take so many times the slowest of the last ones."""
REMEMBERED = 20
FIRST_STEP_SECONDS = 3600.0
"""For loading, compiling and the first step, of which nothing is known."""


class Watchdog:
    """Told the last step done; says when the next is overdue. All times in seconds of one clock."""

    def __init__(self, least: float, now: float) -> None:
        self.least = least
        self.step: int | None = None
        self.since = now
        self.durations: deque[float] = deque(maxlen=REMEMBERED)

    def see(self, step: int | None, now: float) -> None:
        if step is None or step == self.step:
            return
        if self.step is not None:
            self.durations.append(now - self.since)
        self.step, self.since = step, now

    @property
    def limit(self) -> float:
        if not self.durations:
            return max(FIRST_STEP_SECONDS, self.least)
        return max(self.least, FACTOR * max(self.durations))

    def overdue(self, now: float) -> bool:
        return now - self.since > self.limit


def beat_in(heartbeat: Path) -> int | None:
    """The step in a heartbeat file; None when there is none yet."""
    try:
        return json.loads(heartbeat.read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError):
        return None
