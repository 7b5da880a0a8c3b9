"""When training has stalled, judged by the times of its own last steps."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path

FACTOR = 10.0
"""A step may take this many times as long as the slowest of the last ones."""
REMEMBERED = 20
"""Step times that are kept."""
FIRST_STEP_SECONDS = 3600.0
"""For loading, compiling and the first step, whose duration is unknown."""


class Watchdog:
    """Given the last finished step, says whether the next one is overdue. All times are seconds of one clock.

    Args:
        least: the limit is never lower than this.
    """

    def __init__(self, least: float, now: float) -> None:
        self.least = least
        self.step: int | None = None
        self.since = now
        self.durations: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, step: int | None, now: float) -> None:
        """Record the last finished step."""
        if step is None or step == self.step:
            return
        if self.step is not None:
            self.durations.append(now - self.since)
        self.step, self.since = step, now

    @property
    def limit(self) -> float:
        """Seconds the current step may take."""
        if not self.durations:
            return max(FIRST_STEP_SECONDS, self.least)
        return max(self.least, FACTOR * max(self.durations))

    def overdue(self, now: float) -> bool:
        return now - self.since > self.limit


def step_in(heartbeat: Path) -> int | None:
    """The last finished step according to a heartbeat file; None if there is none yet."""
    try:
        return json.loads(heartbeat.read_text(encoding="utf-8"))["step"]
    except (OSError, ValueError, KeyError):
        return None
